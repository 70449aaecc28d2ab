"""ROLL's submissions and the store: any server answers, one that died is told, and a store that fails is waited for."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from reward_service.errors import StoreUnavailable
from reward_service.stores import MemoryStore
from reward_service.stores.base import Values
from tests.access.configs import MODEL
from tests.conftest import Start
from tests.dialects.conversations import Sample
from tests.dialects.test_roll import RESULT, SUBMIT, ask, submitted, task
from tests.stores.clocks import SetClock


class Shared(MemoryStore):
    """The store of two servers; `is_down` makes it fail."""

    is_down = False

    async def get_many(self, keys: Any) -> Values:
        if self.is_down:
            raise StoreUnavailable("the store is down")
        return await super().get_many(keys)

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        if self.is_down:
            raise StoreUnavailable("the store is down")
        await super().put_many(items, ttl_s=ttl_s)

    async def close(self) -> None:
        """The test ends it."""


@pytest.fixture
def shared() -> tuple[Shared, SetClock]:
    clock = SetClock()
    return Shared(clock=clock), clock


async def test_any_server_on_the_store_answers(start: Start, shared: tuple[Shared, SetClock]) -> None:
    async with start(MODEL, store=shared[0]) as one, start(MODEL, store=shared[0]) as other:
        gate = one.engines["m"].gate = asyncio.Event()
        name = await submitted(one, "1.5")
        assert (await ask(other, name))["errcode"] == 1
        gate.set()
        assert (await ask(one, name))["reward_score"] == 1.5
        assert (await ask(other, name))["reward_score"] == 1.5


async def test_a_server_that_died_leads_to_another_submission(start: Start, shared: tuple[Shared, SetClock]) -> None:
    store, clock = shared
    async with start(MODEL, store=store) as one, start(MODEL, store=store) as other:
        gate = one.engines["m"].gate = asyncio.Event()
        name = await submitted(one, "1.5")
        await clock.advance(20)  # without a renewal: as if the server were gone
        told = await ask(other, name)
        assert (told["errcode"], told["reward_score"]) == (0, None)
        assert "is gone; submit it anew" in told["errmsg"]
        gate.set()


async def test_a_store_that_is_down_is_an_error_of_the_question(start: Start, shared: tuple[Shared, SetClock]) -> None:
    async with start(MODEL, store=shared[0]) as running:
        name = await submitted(running, "1.5")
        shared[0].is_down = True
        question = {"reward_request_id": name}
        answer = await running.http.request("GET", RESULT.format("o"), json=question)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        shared[0].is_down = False
        assert (await ask(running, name))["reward_score"] == 1.5


async def test_a_submission_waits_for_the_store(
    start: Start, shared: tuple[Shared, SetClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(MODEL, store=shared[0]) as running:
        shared[0].is_down = True
        waiting = asyncio.create_task(submitted(running, "1.5"))
        await asyncio.sleep(0.05)
        shared[0].is_down = False
        assert (await ask(running, await waiting))["reward_score"] == 1.5
        shared[0].is_down = True
        monkeypatch.setattr("reward_service.api.dialects.roll.SUBMIT_S", 0.0)
        answer = await running.http.post(SUBMIT.format("o"), json=task(Sample("1.5")))
        assert (answer.status_code, answer.json()["errcode"]) == (503, 503)
        assert "reward_request_id" not in answer.json()
