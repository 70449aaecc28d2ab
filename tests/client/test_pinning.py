"""A pinned run gets numbers of one kind, or an exception."""

import pickle
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from reward_service.client import AnswersDisagree, AsyncClient, Client, ExpectationFailed
from tests.client.scripted import A, Body, Kind, Replica, ask_all, both, conversation, scoring, served
from tests.conftest import ONE_TERM, Running, Start

GOOD = [{"prompt": "p", "response": "1.0"}]
ONE = [conversation(1.5)]


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    async with start(ONE_TERM) as running:
        yield running


async def test_a_pinned_run_ends_when_its_frozen_baselines_change(running: Running) -> None:
    async with AsyncClient("http://test", transport=running.http._transport, pin=True) as client:
        await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [0.0]}])
        await client.freeze_baselines("sft")
        first = await client.score(GOOD)
        assert (await client.score(GOOD)).rewards == first.rewards
        await client.freeze_baselines("sft", frozen=False)
        assert (await client.score(GOOD)).rewards == first.rewards
        await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [2.0]}])
        with pytest.raises(ExpectationFailed, match="409 expectation_failed"):
            await client.score(GOOD)


async def test_baselines_that_are_still_written_are_not_pinned(running: Running) -> None:
    async with AsyncClient("http://test", transport=running.http._transport, pin=True) as client:
        await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [0.0]}])
        first = await client.score(GOOD)
        await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [2.0]}])
        assert (await client.score(GOOD)).rewards != first.rewards


@both
def test_the_first_answer_for_each_objective_is_what_later_requests_expect(kind: Kind) -> None:
    open_ = {"dpo": {"policy_revision": "1", "frozen": False, "revision": 8}}
    replica = Replica(policies=used(7) | open_)
    expected = {"objective_hash": "sha256:o", "models": {"m": "sha256:f"}, "baselines": {"sft": 7}}
    ask_all(kind, replica, [scoring(ONE, name) for name in ("o1", "o1", "o2", "o2", None, None)], pin=True)
    assert [body.get("expect") for body in replica.bodies] == [None, expected] * 3


@both
def test_what_a_first_answer_could_not_name_is_pinned_by_the_first_that_does(kind: Kind) -> None:
    replica, steps = Replica(), [{}, used(7), used(7), used(8)]

    def answer(request: httpx.Request) -> httpx.Response:
        replica.policies = steps[len(replica.bodies)]  # none while the store is away
        return replica(request)

    with pytest.raises(AnswersDisagree, match=r"baselines\.sft\.revision: 7 and 8"):
        ask_all(kind, answer, [scoring(ONE)] * 4, pin=True)
    assert [body.get("expect", {}).get("baselines") for body in replica.bodies] == [None, {}, {"sft": 7}, {"sft": 7}]


def used(revision: int) -> Body:
    """A frozen policy, as an answer names it."""
    return {"sft": {"policy_revision": "1", "frozen": True, "revision": revision}}


@both
def test_a_request_that_says_itself_what_it_expects_is_left_alone(kind: Kind) -> None:
    replica, own = Replica(), {"objective_hash": "sha256:x"}
    ask_all(kind, replica, [scoring(ONE), scoring(ONE, expect=own)], pin=True)
    assert [body.get("expect") for body in replica.bodies] == [None, own]


@both
def test_what_a_resumed_run_expects_goes_with_every_request(kind: Kind) -> None:
    was = {"objective_hash": "sha256:o", "baselines": {"dpo": 8}}
    replica = Replica()
    ask_all(kind, replica, [scoring(ONE), scoring(ONE)], pin=True, expect=was)
    assert [body.get("expect") for body in replica.bodies] == [was, {**was, "models": {"m": "sha256:f"}}]
    ask_all(kind, replica, [scoring(ONE), scoring(ONE)], expect=was)
    assert [body.get("expect") for body in replica.bodies[2:]] == [was, was]


def test_a_client_says_what_it_expects_of_the_next_answer() -> None:
    with Client(A, transport=httpx.MockTransport(Replica(policies=used(7))), pin=True) as client:
        assert client.expectation() is None
        client.score(ONE)
        held = {"objective_hash": "sha256:o", "models": {"m": "sha256:f"}, "baselines": {"sft": 7}}
        assert client.expectation() == held


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"hash": "sha256:o"}, r"expect\.hash: 'sha256:o': .*; valid: objective_hash, models \(fingerprint by model\)"),
        ({"models": {"m": 1}}, r"expect\.models\.m: 1: "),
        ("sha256:o", "expect: 'sha256:o': "),
    ],
)
def test_an_expectation_that_is_none_is_refused_at_once(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(A, expect=value)


@both
def test_a_run_that_is_not_pinned_expects_nothing(kind: Kind) -> None:
    replica = Replica()
    ask_all(kind, replica, [scoring(ONE), scoring(ONE)])
    assert [body.get("expect") for body in replica.bodies] == [None, None]


def test_answers_to_first_calls_at_the_same_time_must_agree() -> None:
    meet = threading.Barrier(2)
    answers = [Replica(fingerprint="sha256:f"), Replica(fingerprint="sha256:g")]

    def answer(request: httpx.Request) -> httpx.Response:
        replica = answers.pop()
        meet.wait(60)
        return replica(request)

    failures: list[Exception] = []
    with Client(A, transport=httpx.MockTransport(answer), pin=True) as client:

        def rank() -> None:
            try:
                client.score(ONE)
            except AnswersDisagree as error:
                failures.append(error)

        threads = [threading.Thread(target=rank) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(failures) == 1
    assert "two answers of a pinned run" in str(failures[0])


def test_a_client_that_travels_takes_its_pin_along() -> None:
    replica = Replica()
    with served(replica) as url, Client(url, pin=True) as client:
        client.score(ONE)
        with pickle.loads(pickle.dumps(client)) as copy:
            copy.score(ONE)
    assert replica.bodies[1]["expect"]["models"] == {"m": "sha256:f"}
