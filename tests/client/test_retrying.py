"""What is tried again, what is not, and what is said when the time is over."""

import asyncio
import json
import logging
import math
import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from reward_service.client import AsyncClient, ClientError, Conflict, ExpectationFailed, RequestFailed, Unavailable
from reward_service.client.retrying import FIRST_BACKOFF_S
from tests.client.scripted import (
    LATER,
    Asked,
    Kind,
    Replica,
    ask,
    ask_all,
    both,
    conversation,
    item_error,
    problem,
    scoring,
)

ONE = [conversation(1.5, id="a")]


@both
@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_service_that_is_busy_or_restarting_is_asked_again(kind: Kind, status: int) -> None:
    replica = Replica([httpx.Response(status, text="<html>")])
    assert ask(kind, replica, "score", ONE).rewards == [1.5]
    assert len(replica.requests) == 2


@both
@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("silent"),
        httpx.RemoteProtocolError("closed"),
        httpx.ReadError(""),
    ],
)
def test_a_lost_connection_is_made_again(kind: Kind, error: Exception) -> None:
    replica = Replica([error])
    assert ask(kind, replica, "score", ONE).rewards == [1.5]


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_a_service_refuses_is_not_sent_again(kind: Kind, status: int) -> None:
    replica = Replica([problem(status, "refused")])
    with pytest.raises(RequestFailed) as failed:
        ask(kind, replica, "score", ONE)
    assert (failed.value.status, failed.value.code, len(replica.requests)) == (status, "refused", 1)


@both
def test_a_conflict_has_an_exception_of_its_own(kind: Kind) -> None:
    with pytest.raises(Conflict) as failed:
        ask(kind, Replica([problem(409, "policy_frozen")]), "score", ONE)
    assert not isinstance(failed.value, ExpectationFailed)
    with pytest.raises(ExpectationFailed):
        ask(kind, Replica([problem(409, "expectation_failed")]), "score", ONE)


@pytest.mark.parametrize(("kind", "is_date"), [("sync", False), ("async", False), ("sync", True)])
def test_a_service_that_says_when_to_come_back_is_left_alone_until_then(kind: Kind, is_date: bool) -> None:
    clock = time.time if is_date else time.monotonic
    date = int(time.time()) + 2
    told = formatdate(date, usegmt=True) if is_date else "1"
    times: list[float] = []
    replica = Replica([problem(429, "overloaded", {"retry-after": told})])

    def answer(request: httpx.Request) -> httpx.Response:
        times.append(clock())
        return replica(request)

    assert ask(kind, answer, "score", ONE).rewards == [1.5]
    assert times[1] > (date if is_date else times[0] + 1) - 0.05


@both
def test_a_service_that_says_too_late_is_given_up_at_once(kind: Kind) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="429 overloaded"):
        ask(kind, Replica([problem(429, "overloaded", {"retry-after": "900"})]), "score", ONE)
    assert time.monotonic() - started < 30


@both
def test_the_end_of_the_deadline_says_what_was_tried_where_how_long_and_the_last_error(kind: Kind) -> None:
    said = [problem(503, "not_ready"), problem(503, "not_ready"), problem(503, "engine_failed", LATER)]
    with pytest.raises(Unavailable) as failed:
        ask(kind, Replica([*said]), "score", ONE * 3)
    error = failed.value
    assert error.tries == 3
    assert error.reasons == {"http://a:8000: 503 not_ready": 2, "http://a:8000: 503 engine_failed": 1}
    assert error.last == "http://a:8000: 503 engine_failed: the engine_failed of it"
    assert "POST /v1/score of 3 conversations: no answer in" in str(error)
    assert isinstance(error, ClientError)


async def test_the_random_waits_of_a_client_do_not_end_a_call_before_its_deadline() -> None:
    async def waited_s(client: AsyncClient) -> float:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await client.score(ONE)
        return time.monotonic() - started

    transport = httpx.MockTransport(Replica([httpx.ConnectError("refused")] * 9999))
    async with AsyncClient("http://a:8000", transport=transport, deadline_s=1.0) as client:
        waited = await asyncio.gather(*(waited_s(client) for _ in range(40)))
    assert min(waited) > 1.0 - FIRST_BACKOFF_S


@both
def test_every_other_call_is_tried_again_too(kind: Kind) -> None:
    left = [problem(503, "not_ready"), httpx.Response(200, json={"models": []})]
    assert ask(kind, lambda _: left.pop(0), "models").models == []


@both
def test_tries_of_one_call_have_one_request_id_and_calls_have_their_own(kind: Kind) -> None:
    replica = Replica([problem(503, "not_ready")])
    ask_all(kind, replica, [scoring(ONE), scoring(ONE)])
    first, second, other = [request.headers["x-request-id"] for request in replica.requests]
    assert first == second != other


@both
def test_a_write_that_is_tried_again_carries_one_key(kind: Kind) -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(json.loads(request.content)["idempotency_key"])
        written = {"model": "m", "policy": "p", "policy_revision": None, "revision": 1, "written": 1, "unchanged": 0}
        return httpx.Response(200, json=written) if len(keys) % 2 == 0 else problem(503, "store_unavailable")

    put = Asked("put_baselines", ("m", "p", [{"prompt": "p", "rewards": [1.0]}]), {})
    ask_all(kind, answer, [put, put])
    assert keys[0] == keys[1] != keys[2] == keys[3]


@both
def test_only_the_conversations_whose_error_may_pass_are_sent_again(kind: Kind) -> None:
    passing = item_error(503, "store_unavailable")
    final = {"c": [item_error(422, "baseline_missing")] * 9, "d": [item_error(503, "not_finite")] * 9}
    replica = Replica(items={"b": [passing, item_error(504, "deadline_exceeded")], **final})
    asked = [conversation(float(i), id=name) for i, name in enumerate("abcde")]
    answer = ask(kind, replica, "score", asked, on_failure="none")
    assert answer.rewards == [0.0, 1.0, None, None, 4.0]
    assert [score.id for score in answer.scores] == list("abcde")
    assert [[one["id"] for one in body["conversations"]] for body in replica.bodies] == [list("abcde"), ["b"], ["b"]]
    assert answer.usage.tokens == 10 * 5 + 10 + 10


@both
def test_a_conversation_that_the_engine_fails_on_is_given_up_after_three_tries(kind: Kind) -> None:
    replica = Replica(items={"a": [item_error(503, "engine_failed")] * 9})
    answer = ask(kind, replica, "score", ONE, on_failure="none")
    assert [score.error.code for score in answer.scores] == ["engine_failed"]
    assert len(replica.bodies) == 3


@both
def test_an_error_that_does_not_pass_until_the_deadline_stays_as_the_service_told_it(kind: Kind) -> None:
    replica = Replica(items={"a": [item_error(503, "store_unavailable")] * 999})

    def answer(request: httpx.Request) -> httpx.Response:
        return problem(503, "not_ready", LATER) if len(replica.bodies) == 2 else replica(request)

    found = ask(kind, answer, "score", [*ONE, conversation(2.5, id="b")], on_failure="none")
    assert found.rewards == [None, 2.5]
    assert found.scores[0].error.code == "store_unavailable"


@both
def test_a_client_that_waits_says_so_every_so_often_in_one_line(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "reward_service.client"]

    def answer(request: httpx.Request) -> httpx.Response:
        if len(said()) < 2 or "ConnectError: refused" not in " ".join(said()):
            raise httpx.ConnectError("refused")
        return Replica()(request)

    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "reward_service.client"):
        assert ask(kind, answer, "score", ONE, log_every_s=0.3).rewards == [1.5]
    assert 2 <= len(said()) <= (time.monotonic() - started) / 0.3
    assert all("1 call, the oldest POST /v1/score of 1 conversation: http://a:8000" in line for line in said())


def telling(**score: Any) -> str:
    """An answer of something that is no reward service, with this for its one conversation."""
    answer = Replica().answer({"conversations": [ONE[0]]})
    answer["scores"][0] |= score
    return json.dumps(answer)


@both
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<html>", "it is no ScoreAnswer"),
        (telling(reward=None, error=None), "scores.0. has the reward None and the error None"),
        (telling(reward=math.nan, error=None), "scores.0. has the reward nan"),
        (
            telling(reward=0.0, error=item_error(503, "engine_failed")),
            "scores.0. has the reward 0.0 and the error code=",
        ),
        (json.dumps(Replica().answer({"conversations": []})), "it has 0 scores for 1 conversations"),
        (json.dumps(Replica().answer({"conversations": [conversation(1, id="x")]})), "scores.0. is of 'x'"),
    ],
)
def test_an_answer_to_something_else_is_refused(kind: Kind, text: str, reason: str) -> None:
    with pytest.raises(RequestFailed, match=f"200 not_an_answer: .*{reason}"):
        ask(kind, lambda _: httpx.Response(200, text=text), "score", ONE)
