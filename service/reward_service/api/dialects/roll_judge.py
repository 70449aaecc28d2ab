"""ROLL's LLM judge: `judge_api_url: http://host/roll-judge/OBJECTIVE/v1`, one OpenAI chat completion per sample."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from reward_service.api.dialects.asked import Asked, OnlyMessages
from reward_service.api.dialects.extended import OpenAIDialect
from reward_service.api.dialects.numbers import probabilities, rewards
from reward_service.api.dialects.reading import Body
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.errors import InvalidRequest
from reward_service.schemas import Conversation, Message, ScoreAnswer
from reward_service.schemas.base import Answer, Items, Json, Text

router = dialect_router()
OUT_OF = 10.0


@dataclass(frozen=True, slots=True)
class Form:
    """What stands before the prompt, between prompt and response, and behind the response in a judge's prompt.

    `out_of` is the score of a perfect response, as the version of ROLL that writes this form reads it.
    """

    before: str
    between: str
    behind: str
    out_of: float


FORMS = (
    Form(
        "\n            Prompt: ",
        "\n            \n            Response: ",
        "\n            \n            Reference: ",
        OUT_OF,
    ),
    Form("\n\nPrompt: ", "\n\nResponse: ", "\n\nReference: ", 1.0),
    Form(
        "**Question:**  \n", "  \n\n**Solution Process (Final Step Only):**  \n", "  \n\n**Reference Answer:**  \n", 1.0
    ),
)
"""ROLL's own forms. The version that writes the second divides a score by ten only if it is more than 1."""
LEFT_OVER = "\nassistant"
"""What is left of the generation prompt where ROLL cut the prompt out of the policy's text."""
LIKELY = 0.5


class JudgeRequest(Body):
    """A judge's prompt as the last message, or a conversation that ends in the response."""

    model: Text | None = None
    messages: Items[Message]
    stream: Literal[False] | None = None


class JudgeChoice(Answer):
    """The verdict, as a message of the assistant."""

    index: int
    message: dict[str, str]
    finish_reason: Literal["stop"]


class JudgeCompletion(Answer):
    """A chat completion whose text is `Score: x` (x from 0 to 10, or to 1) and `Verdict: yes` or `no`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[JudgeChoice]
    usage: dict[str, int]


class RollJudge(OpenAIDialect[JudgeRequest, OnlyMessages]):
    """The reward as a judge's verdict: its probability as a score, and whether that is at least 0.5."""

    body, parameters = JudgeRequest, OnlyMessages
    answer = JudgeCompletion
    input = "messages"

    def parse(self, body: JudgeRequest, asked: Asked[OnlyMessages]) -> list[Conversation]:  # noqa: ARG002
        """The conversation inside the judge's prompt, or the messages themselves."""
        if body.messages and body.messages[-1].role == "assistant":
            return [Conversation(messages=body.messages)]
        return [judged(body.messages)]

    def render(self, body: JudgeRequest, asked: Asked[OnlyMessages], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """A chat completion."""
        form = form_of(text_of(body.messages))
        verdicts = probabilities(answer.recipe, rewards(answer))
        if verdicts is None:
            raise InvalidRequest(
                f"objective: the rewards of {answer.objective!r} are neither probabilities nor their logarithms, and a"
                " judge's score is from 0 to 10; choose an objective of the aggregate `and` or `geometric`"
            )
        text = said(verdicts[0], form.out_of if form else OUT_OF)
        tokens = answer.usage.tokens
        return {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": answer.objective,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
        }


def said(probability: float, out_of: float) -> str:
    """A verdict that every version of ROLL reads: some look for the score, some for yes or no (and take 0 for neither).

    The score is written without an exponent, which the trainer would not read.
    """
    return f"Score: {out_of * probability:.20f}\nVerdict: {'yes' if probability >= LIKELY else 'no'}"


def text_of(messages: Sequence[Message]) -> str:
    """The judge's prompt, if the last message is one; a response that ends a conversation is none."""
    return (messages[-1].content or "") if messages and messages[-1].role != "assistant" else ""


def form_of(text: str) -> Form | None:
    """The form of a judge's prompt: the one that begins first, since a response may imitate others."""
    begun = {text.find(form.before): form for form in FORMS if form.before in text}
    return begun[min(begun)] if begun else None


def judged(messages: Sequence[Message]) -> Conversation:
    """Prompt and response out of a judge's prompt in one of ROLL's own forms; InvalidRequest when it is in none."""
    text = text_of(messages)
    if form := form_of(text):
        prompt, found, rest = text.partition(form.before)[2].partition(form.between)
        response, ended, _ = rest.rpartition(form.behind)
        if found and ended:
            return Conversation(prompt=prompt.removesuffix(LEFT_OVER), response=response)
    raise InvalidRequest(
        "messages: the last message is neither the assistant's nor a judge's prompt in a form of ROLL's own, so that"
        " there is no response to score; valid: a conversation that ends in the response, or a judge_prompt of ROLL"
    )


add_route(
    router, "/roll-judge/{objective}/v1/chat/completions", RollJudge(), "ROLL's judge: a reward as a chat completion"
)
