"""verifiers: functions called as a rubric of 0.1 and as a task of 0.4 call them."""

import inspect
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from reward_service.client import RequestFailed, ScoringFailed, Unavailable
from reward_service.client.trainers.verifiers import NoReward, rubric_reward, rubric_terms, trace_reward
from tests.client.scripted import Replica, problem, served
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward

PROMPT = [{"role": "user", "content": GIRAFFE}]


def rollout(answer: str, **more: Any) -> dict[str, Any]:
    """The state of a rollout in a chat environment."""
    completion = [{"role": "assistant", "content": answer}]
    return {"prompt": PROMPT, "completion": completion, "answer": "5.5", "trajectory": [], "info": {}, **more}


async def called(function: Any, state: dict[str, Any]) -> float:
    """As `Rubric._call_individual_reward_func`: what the signature names, and 0.0 for an Exception."""
    signature = inspect.signature(function)
    assert signature.return_annotation is float
    assert function.__name__
    merged = {"prompt": state["prompt"], "completion": state["completion"], "answer": state["answer"], "state": state}
    try:
        allowed = {name: value for name, value in merged.items() if name in signature.parameters}
        return float(await function(**allowed))
    except Exception:
        return 0.0


@pytest.mark.parametrize("prompt", [PROMPT, GIRAFFE])
async def test_a_rubric_gets_the_services_number(prompt: Any, service_url: str, reward: Reward) -> None:
    function = rubric_reward(service_url, "both")
    for answer in ANSWERS:
        state = rollout(answer, prompt=prompt)
        assert await called(function, state) == reward(GIRAFFE, answer)
        assert await called(function, {**rollout(answer), "completion": answer}) == reward(GIRAFFE, answer)


async def test_the_functions_of_a_rubric_share_one_request_per_rollout(service_url: str, client: Any) -> None:
    functions = [rubric_reward(service_url), *rubric_terms(["helpful", "harmless"], service_url)]
    assert [one.__name__ for one in functions] == ["reward", "helpful", "harmless"]
    state = rollout(ANSWERS[0])
    told = [await called(function, state) for function in functions]
    (score,) = client.score([{"prompt": PROMPT, "response": ANSWERS[0]}]).scores
    assert told == [score.reward, score.terms[0].transformed, score.terms[1].transformed]


async def test_one_request_is_enough(service_url: str) -> None:
    replica = Replica()
    with served(replica) as url:
        state = rollout("1.5", prompt=GIRAFFE, completion="1.5")
        assert [await called(rubric_reward(url), state) for _ in range(2)] == [1.5, 1.5]
    assert len(replica.bodies) == 1


async def test_a_rubric_that_makes_zero_of_exceptions_makes_none_of_these() -> None:
    with pytest.raises(NoReward) as raised:
        await called(rubric_reward(NOBODY, deadline_s=0.3), rollout("Very."))
    assert isinstance(raised.value.__cause__, Unavailable)
    with pytest.raises(ValueError, match="a rubric counts None as 0"):
        rubric_reward(NOBODY, on_failure="none")


async def test_a_term_that_there_is_not_is_named(service_url: str) -> None:
    with pytest.raises(NoReward, match=r"'kind/transformed' is none of \['harmless/raw', .*'reward'\]"):
        await called(rubric_terms(["kind"], service_url)[0], rollout("Very."))


async def test_a_term_without_a_number_is_no_zero(watched: str) -> None:
    with pytest.raises(NoReward, match="'watched/transformed' is none of"):
        await called(rubric_terms(["watched"], watched)[0], rollout("Very."))
    with pytest.raises(ValueError, match="no single number can stand for every term"):
        rubric_terms(["watched"], watched, on_failure=-1.0)


async def test_a_tool_call_that_is_none_is_no_zero(service_url: str) -> None:
    turns = [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]},
        *rollout("Very.")["completion"],
    ]
    with pytest.raises(NoReward, match="KeyError: 'id'"):
        await called(rubric_reward(service_url), {**rollout("Very."), "completion": turns})


async def test_another_completion_in_the_same_state_gets_a_reward_of_its_own(service_url: str, reward: Reward) -> None:
    function, state = rubric_reward(service_url), rollout("Very.")
    assert await called(function, state) == reward(GIRAFFE, "Very.")
    state["completion"] = [{"role": "assistant", "content": ANSWERS[0]}]
    assert await called(function, state) == reward(GIRAFFE, ANSWERS[0])


class Turn(BaseModel):
    """A message of verifiers 0.4."""

    role: str
    content: str | list[dict[str, str]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    provider_state: list[dict[str, Any]] | None = None


@dataclass
class Trace:
    """A trace of verifiers 0.4, as far as a reward function uses it."""

    messages: list[Turn]
    is_truncated: bool = False
    metrics: dict[str, float] = field(default_factory=dict)

    def record_metrics(self, values: dict[str, float]) -> None:
        self.metrics.update(values)


async def test_a_trace_gets_its_reward_and_the_terms_as_metrics(service_url: str, reward: Reward) -> None:
    parts = [{"type": "text", "text": text} for text in ("How tall is ", "a giraffe?")]
    asked = Turn(role="user", content=parts)
    trace = Trace([asked, Turn(role="assistant", content="Very.", provider_state=[{"opaque": 1}])])
    assert await trace_reward(None, trace) == reward(GIRAFFE, "Very.")
    assert list(trace.metrics) == ["helpful/raw", "helpful/transformed", "harmless/raw", "harmless/transformed"]
    cut = Trace([asked, Turn(role="assistant", content="Ver")], is_truncated=True)
    assert await trace_reward(None, cut) == reward(GIRAFFE, "Ver", finish_reason="length")


async def test_tool_calls_go_in_the_form_that_templates_know(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica([problem(422, "invalid_request")])  # the models here have no tools
    call = {"id": "1", "type": "function", "name": "look", "arguments": '{"at": "giraffe"}', "namespace": None}
    turns = [Turn(role="user", content=GIRAFFE), Turn(role="assistant", tool_calls=[call])]
    with served(replica) as url:
        monkeypatch.setenv("REWARD_SERVICE_URL", url)
        with pytest.raises(RequestFailed):
            await trace_reward(None, Trace([*turns, Turn(role="assistant", content="Very.")]))
    sent = json.loads(replica.requests[0].content)["conversations"][0]["messages"][1]["tool_calls"]
    assert sent == [{"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "giraffe"}'}}]


async def test_an_image_is_no_text(service_url: str) -> None:
    image = Turn(role="user", content=[{"type": "image_url", "image_url": "x"}])
    with pytest.raises(ValueError, match="is no text; valid: a text, or parts of the type text"):
        await trace_reward(None, Trace([image, Turn(role="assistant", content="A giraffe.")]))
    with pytest.raises(ScoringFailed):
        await trace_reward(None, Trace([Turn(role="user", content=GIRAFFE)]))
