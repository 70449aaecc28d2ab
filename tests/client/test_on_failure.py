"""A conversation without a reward is an exception, None, or a number that the caller named: never silently 0."""

import logging
from typing import Any

import httpx
import pytest

from reward_service.client import RequestFailed, ScoringFailed, Unavailable
from tests.client.scripted import LATER, A, B, Kind, Replica, ask, both, conversation, item_error, problem, replicas

ASKED = [conversation(1.5, id="a"), conversation(2.5, id="b")]


def lacking() -> Replica:
    return Replica(items={"b": [item_error(422, "baseline_missing")]})


def gone() -> Replica:
    return Replica([httpx.ConnectError("refused"), problem(503, "not_ready", LATER)])


def down(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@both
def test_a_missing_reward_raises_unless_told_otherwise(kind: Kind) -> None:
    with pytest.raises(ScoringFailed, match=r"1 of 2 conversations have no reward; conversations\[1\]") as failed:
        ask(kind, lacking(), "score", ASKED)
    assert list(failed.value.failed) == [1]


@both
@pytest.mark.parametrize(
    ("on_failure", "expected", "said"), [("none", None, "None"), (-3, -3.0, "-3"), (0.0, 0.0, "0.0")]
)
def test_a_missing_reward_is_none_or_the_number_named_and_is_logged(
    kind: Kind, on_failure: Any, expected: float | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "reward_service.client"):
        answer = ask(kind, lacking(), "score", ASKED, on_failure=on_failure)
    assert answer.rewards == [1.5, expected]
    assert answer.scores[1].reward is None
    assert answer.scores[1].error.code == "baseline_missing"
    (line,) = [record.getMessage() for record in caplog.records]
    assert (
        line == f"1 of 2 conversations have no reward (baseline_missing: 1) and get {said}: the baseline_missing of it"
    )


@both
@pytest.mark.parametrize(("on_failure", "expected"), [("none", None), (-3.0, -3.0)])
def test_a_service_that_never_answers_leaves_every_conversation_with_an_error_that_says_so(
    kind: Kind, on_failure: Any, expected: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "reward_service.client"):
        answer = ask(kind, gone(), "score", ASKED, "o", on_failure=on_failure)
    assert answer.rewards == [expected, expected]
    assert [(score.id, score.reward, score.error.code) for score in answer.scores] == [
        ("a", None, "unavailable"),
        ("b", None, "unavailable"),
    ]
    assert "http://a:8000: ConnectError" in answer.scores[0].error.detail
    assert (answer.objective, answer.objective_hash, answer.models, answer.usage.tokens) == ("o", "", {}, 0)
    assert "2 of 2 conversations have no reward (unavailable: 2)" in caplog.records[-1].getMessage()


@both
def test_only_the_part_that_nobody_answered_has_no_reward(kind: Kind) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return problem(503, "not_ready", LATER) if b'"bad"' in request.content else Replica()(request)

    asked = [conversation(float(i), group="bad" if i % 2 else "good") for i in range(8)]
    found = ask(kind, answer, "score", asked, on_failure="none", max_conversations_per_request=4)
    assert found.rewards == [0.0, None, 2.0, None, 4.0, None, 6.0, None]
    assert found.objective_hash == "sha256:o"
    with pytest.raises(Unavailable):
        ask(kind, answer, "score", asked, max_conversations_per_request=4)


@both
@pytest.mark.parametrize("status", [401, 404, 409, 422])
def test_what_the_service_refuses_raises_whatever_on_failure_says(kind: Kind, status: int) -> None:
    for on_failure in ("none", 0.0):
        with pytest.raises(RequestFailed):
            ask(kind, Replica([problem(status, "refused")]), "score", ASKED, on_failure=on_failure)


@both
def test_other_calls_raise_whatever_on_failure_says(kind: Kind) -> None:
    with pytest.raises(Unavailable):
        ask(kind, replicas(a=down, b=down), "models", urls=[A, B], on_failure="none", deadline_s=0.3)
