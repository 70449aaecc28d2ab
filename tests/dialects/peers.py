"""The trainers that send messages or texts for a model: what each sends for a sample, and what it means by that."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.dialects.conversations import Sample
from tests.dialects.trainers import Trainer

JUDGE_PROMPT = """
            You are an expert judge evaluating the quality of a response to a given prompt.
            
            Prompt: {question}
            
            Response: {response}
            
            Reference: {reference}
            
            Please evaluate the response on a scale from 0 to 10.
            Consider factors such as correctness, completeness, clarity, and relevance to the prompt.
            Your evaluation should be a single number between 0 and 10.
            Note output your score in the following format: Score: your score.
            """  # noqa: W293


@dataclass(frozen=True, kw_only=True)
class Peer(Trainer):
    """`conversation` is what a sample is to `/v1/score`, `number` what the trainer makes of a reward."""

    conversation: Callable[[Sample], dict[str, Any]]
    number: Callable[[float], float] = float
    input: str = "messages"
    knows_finish: bool = True


def rollout(sample: Sample) -> dict[str, Any]:
    """A body of NeMo-Gym's `POST /verify`."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": sample.response, "annotations": []}],
    }
    return {
        "responses_create_params": {"input": list(sample.prompt), "parallel_tool_calls": True},
        "verifier_metadata": {"answer": 5},
        "response": {
            "id": "resp_1",
            "object": "response",
            "created_at": 1.0,
            "model": "policy",
            "output": [message],
            "incomplete_details": None if sample.ended else {"reason": "max_output_tokens"},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        },
    }


def judged(sample: Sample) -> dict[str, Any]:
    """A body of ROLL's LLM judge, which knows the last question only."""
    asked = JUDGE_PROMPT.format(question=sample.prompt[-1]["content"], response=sample.response, reference="5 m")
    return {"model": "judge", "messages": [{"role": "user", "content": asked}]}


def score_of(document: Any) -> float:
    """What ROLL reads: the score out of the text, divided by ten."""
    found = re.search("Score: ([0-9.]+)", document["choices"][0]["message"]["content"])
    assert found
    return float(found[1]) / 10


def texts(samples: Sequence[Sample]) -> dict[str, Any]:
    """A body of verl's reward loop for one sample, or of a client that sends several."""
    rendered = [one.rendered for one in samples]
    return {"model": "reward", "input": rendered[0] if len(rendered) == 1 else rendered}


CLASSIFY = Peer(
    name="vllm classify",
    path="/vllm/{objective}/classify",
    body=lambda samples: {**texts(samples), "use_activation": False},
    rewards=lambda document: [one["probs"][-1] for one in document["data"]],
    batches=True,
    sends_prompt=False,
    required="input",
    conversation=lambda sample: {"text": sample.rendered},
    input="raw",
    knows_finish=False,
)
EMBEDDINGS = Peer(
    name="vllm embeddings",
    path="/vllm/{objective}/v1/embeddings",
    body=texts,
    rewards=lambda document: [one["embedding"][-1] for one in document["data"]],
    batches=True,
    sends_prompt=False,
    required="input",
    conversation=lambda sample: {"text": sample.rendered},
    input="raw",
    knows_finish=False,
)
NEMO_GYM = Peer(
    name="nemo-gym",
    path="/nemo-gym/{objective}/verify",
    body=lambda samples: rollout(samples[0]),
    rewards=lambda document: [document["reward"]],
    batches=False,
    sends_prompt=True,
    required="response",
    conversation=lambda sample: sample.conversation,
)
JUDGE = Peer(
    name="roll-judge",
    path="/roll-judge/{objective}/v1/chat/completions",
    body=lambda samples: judged(samples[0]),
    rewards=lambda document: [score_of(document)],
    batches=False,
    sends_prompt=True,
    required="messages",
    conversation=lambda sample: {"prompt": sample.prompt[-1]["content"], "response": sample.response},
    number=math.exp,
    knows_finish=False,
)
PEERS = (CLASSIFY, EMBEDDINGS, NEMO_GYM, JUDGE)
