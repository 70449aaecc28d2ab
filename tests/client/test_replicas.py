"""Several base URLs: which replica is asked, which is left alone, and what happens when they are not alike."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from reward_service.client import AnswersDisagree, AsyncClient, Unavailable
from tests.client.scripted import (
    LATER,
    A,
    Asked,
    B,
    Kind,
    Replica,
    ask,
    ask_all,
    both,
    conversation,
    item_error,
    problem,
    replicas,
    scoring,
)

ONE = [conversation(1.5)]
SCORE = scoring(ONE)


def down(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@both
def test_a_replica_that_fails_is_made_up_for_by_another_without_waiting(kind: Kind) -> None:
    good = Replica()
    started = time.monotonic()
    answers = ask_all(kind, replicas(a=down, b=good), [SCORE] * 20, urls=[A, B], deadline_s=5.0)
    assert [answer.rewards for answer in answers] == [[1.5]] * 20
    assert time.monotonic() - started < 5


@both
def test_a_replica_that_failed_is_left_alone_for_a_while_and_then_asked_whether_it_is_back(kind: Kind) -> None:
    first, second = Replica([httpx.ConnectError("refused")]), Replica()

    def slowly(request: httpx.Request) -> httpx.Response:
        time.sleep(0.02)
        return second(request)

    ask_all(kind, replicas(a=first, b=slowly), [SCORE] * 100, urls=[A, B])
    paths = [request.url.path for request in first.requests]
    assert paths[:3] == ["/v1/score", "/health", "/v1/score"]
    assert paths.count("/health") == 1
    assert len(first.bodies) + len(second.bodies) == 100
    assert len(first.bodies) > 5


@both
def test_a_replica_that_is_gone_costs_one_look_at_its_health_and_no_request(kind: Kind) -> None:
    asked: list[str] = []

    def gone(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        raise httpx.ConnectError("refused")

    def slowly(request: httpx.Request) -> httpx.Response:
        time.sleep(0.03)
        return Replica()(request)

    def calls() -> Iterator[Asked]:
        while "/health" not in asked:
            yield SCORE
        yield from [SCORE] * 10

    ask_all(kind, replicas(a=gone, b=slowly), calls(), urls=[A, B])
    assert asked.count("/v1/score") == 1
    assert 1 <= asked.count("/health") <= 3


async def test_the_replica_with_the_fewest_requests_under_way_is_asked() -> None:
    now = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0}

    async def answer(request: httpx.Request) -> httpx.Response:
        host = request.url.host
        now[host] += 1
        most[host] = max(most[host], now[host])
        await asyncio.sleep(0.01)
        now[host] -= 1
        return Replica()(request)

    async with AsyncClient([A, B], transport=httpx.MockTransport(answer)) as client:
        await asyncio.gather(*(client.score(ONE) for _ in range(32)))
    assert most == {"a": 16, "b": 16}


@both
def test_a_replica_without_room_is_left_alone_by_this_call_only(kind: Kind) -> None:
    busy, other = Replica([problem(429, "overloaded", {"retry-after": "60"})] * 2), Replica()
    started = time.monotonic()
    for _ in range(2):
        ask_all(kind, replicas(a=busy, b=other), [SCORE] * 8, urls=[A, B])
    assert time.monotonic() - started < 10


@both
def test_conversations_that_one_replica_failed_on_are_sent_to_another(kind: Kind) -> None:
    failing = Replica(items={"x": [item_error(503, "engine_failed")] * 9})
    good = Replica()
    for _ in range(6):
        asked = scoring([conversation(1.5, id="x")])
        assert ask_all(kind, replicas(a=failing, b=good), [asked], urls=[A, B])[0].rewards == [1.5]


@both
def test_all_replicas_stand_in_the_error_when_none_answers(kind: Kind) -> None:
    full = problem(429, "overloaded", LATER)
    with pytest.raises(Unavailable) as failed:
        ask(
            kind,
            replicas(a=Replica([httpx.ConnectError("refused"), full]), b=Replica([problem(503, "not_ready", LATER)])),
            "score",
            ONE,
            urls=[A, B],
        )
    assert set(failed.value.reasons) == {
        "http://a:8000: ConnectError",
        "http://a:8000: 429 overloaded",
        "http://b:8000: 503 not_ready",
    }


@both
@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Replica(fingerprint="sha256:g"), "models.m.fingerprint: 'sha256:[fg]' and 'sha256:[fg]' in answers of http"),
        (Replica(objective_hash="sha256:p"), "objective_hash: 'sha256:[op]' and 'sha256:[op]' in answers of http"),
    ],
)
def test_numbers_of_replicas_that_are_not_alike_are_never_mixed(kind: Kind, other: Replica, reason: str) -> None:
    asked = [conversation(float(i)) for i in range(64)]
    with pytest.raises(AnswersDisagree, match=reason):
        ask(kind, replicas(a=Replica(), b=other), "score", asked, urls=[A, B], max_conversations_per_request=2)


@both
def test_replicas_whose_frozen_baselines_differ_do_not_share_a_store(kind: Kind) -> None:
    def policies(revision: int, *, frozen: bool) -> Replica:
        return Replica(policies={"sft": {"policy_revision": None, "frozen": frozen, "revision": revision}})

    asked = [conversation(float(i)) for i in range(64)]
    options: Any = {"urls": [A, B], "max_conversations_per_request": 2}
    with pytest.raises(AnswersDisagree, match=r"baselines\.sft\.revision"):
        ask(kind, replicas(a=policies(3, frozen=True), b=policies(4, frozen=True)), "score", asked, **options)
    written = replicas(a=policies(3, frozen=False), b=policies(4, frozen=False))
    assert ask(kind, written, "score", asked, **options).baselines["sft"].revision == 3
