"""Canned responses: scored once however many ask, kept, and never poisoned by one caller's failure."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from reward_service.baselines import Baselines, CannedKey
from reward_service.errors import (
    ConversationTooLong,
    DeadlineExceeded,
    EngineFailed,
    NotFinite,
    Overloaded,
)
from reward_service.stores import MemoryStore, Store
from tests.baselines.canned_engine import KEYS, Answer, FakeEngine, numbers, settle


async def test_200_requests_that_miss_at_once_are_one_computation(store: Store) -> None:
    baselines, engine = Baselines(store), FakeEngine()
    requests = [asyncio.create_task(baselines.canned(KEYS[:2], engine)) for _ in range(200)]
    await settle()
    engine.gate.set()
    results = await asyncio.gather(*requests)
    assert engine.calls == [KEYS[:2]]
    assert all(numbers(result) == [0.0, 1.0] for result in results)
    assert numbers(await baselines.canned(KEYS[:2], engine)) == [0.0, 1.0]
    found = await Baselines(store).look_up(canned=KEYS)
    assert [found.canned[key].tolist() for key in KEYS[:2]] == [[0.0], [1.0]]
    assert len(found.canned) == 2
    assert len(engine.calls) == 1


async def test_requests_that_overlap_compute_each_key_once() -> None:
    baselines, engine = Baselines(MemoryStore()), FakeEngine()
    requests = [asyncio.create_task(baselines.canned(KEYS[i : i + 4], engine)) for i in range(4)]
    await settle()
    engine.gate.set()
    results = await asyncio.gather(*requests)
    assert engine.calls == [KEYS[:4], [KEYS[4]], [KEYS[5]], [KEYS[6]]]
    assert [sorted(numbers(result)) for result in results] == [[i, i + 1, i + 2, i + 3] for i in range(4)]


async def test_the_computation_goes_on_when_the_caller_that_began_it_is_cancelled() -> None:
    baselines, engine = Baselines(MemoryStore()), FakeEngine()
    first, second = (asyncio.create_task(baselines.canned(KEYS[:1], engine)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    engine.gate.set()
    assert numbers(await second) == [0.0]
    assert first.cancelled()
    assert (len(engine.calls), engine.cancelled) == (1, 0)


async def test_the_computation_is_cancelled_when_nobody_waits_and_a_later_caller_begins_a_new_one() -> None:
    baselines, engine = Baselines(MemoryStore()), FakeEngine()
    first = asyncio.create_task(baselines.canned(KEYS[:1], engine))
    await settle()
    first.cancel()
    later = asyncio.create_task(baselines.canned(KEYS[:1], engine))
    await settle()
    engine.gate.set()
    assert numbers(await later) == [0.0]
    assert (len(engine.calls), engine.cancelled) == (2, 1)


async def test_another_caller_takes_over_when_the_deadline_of_the_first_cuts_it_short() -> None:
    baselines, engine = Baselines(MemoryStore()), FakeEngine(DeadlineExceeded("over"))
    requests = [asyncio.create_task(baselines.canned(KEYS[:1], engine)) for _ in range(3)]
    await settle()
    engine.gate.set()
    first, *others = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(first, DeadlineExceeded)
    assert [numbers(other) for other in others if isinstance(other, dict)] == [[0.0], [0.0]]
    assert len(engine.calls) == 2


async def test_a_deadline_of_single_keys_is_the_first_callers_alone() -> None:
    baselines, engine = Baselines(MemoryStore()), FakeEngine()

    async def too_late(keys: list[CannedKey]) -> Sequence[Answer]:
        await engine.gate.wait()
        return [np.array([7.0]), DeadlineExceeded("over")]

    first = asyncio.create_task(baselines.canned(KEYS[:2], too_late))
    await settle()
    second = asyncio.create_task(baselines.canned(KEYS[:2], engine))
    await settle()
    engine.gate.set()
    assert isinstance((await first)[KEYS[1]], DeadlineExceeded)
    assert numbers(await second) == [7.0, 1.0]
    assert engine.calls == [[KEYS[1]]]


@pytest.mark.parametrize("failure", [Overloaded("full", 3.0), EngineFailed("died"), ZeroDivisionError("bug")])
async def test_what_the_engine_raises_is_raised_to_all_that_wait_and_forgotten(failure: Exception) -> None:
    baselines, engine = Baselines(MemoryStore()), FakeEngine(failure)
    requests = [asyncio.create_task(baselines.canned(KEYS[:1], engine)) for _ in range(3)]
    await settle()
    engine.gate.set()
    assert await asyncio.gather(*requests, return_exceptions=True) == [failure] * 3
    assert numbers(await baselines.canned(KEYS[:1], engine)) == [0.0]


async def test_the_error_of_one_key_stays_beside_the_outputs_of_the_others_and_is_not_stored(store: Store) -> None:
    baselines = Baselines(store)
    error = ConversationTooLong("9 tokens")

    async def compute(keys: list[CannedKey]) -> Sequence[Answer]:
        return [np.array([1.0]), error, np.array([np.nan])]

    results = await baselines.canned(KEYS[:3], compute)
    assert results[KEYS[1]] is error
    assert isinstance(results[KEYS[2]], NotFinite)
    assert list((await baselines.look_up(canned=KEYS[:3])).canned) == [KEYS[0]]


async def test_a_computation_cancelled_from_inside_is_an_error_not_a_hang() -> None:
    async def compute(keys: list[CannedKey]) -> Sequence[Answer]:
        raise asyncio.CancelledError

    with pytest.raises(EngineFailed, match="cancelled"):
        await Baselines(MemoryStore()).canned(KEYS[:1], compute)


async def test_a_store_that_fails_costs_the_sharing_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    store, engine = MemoryStore(), FakeEngine()
    engine.gate.set()
    await store.close()
    baselines = Baselines(store)
    for key in (0, 1, 0):
        assert numbers(await baselines.canned([KEYS[key]], engine)) == [key]
    assert engine.calls == [[KEYS[0]], [KEYS[1]]]
    assert caplog.text.count("scored without the store, by each replica for itself: the memory store is closed") == 1


async def test_a_damaged_output_is_scored_anew_and_mended(store: Store) -> None:
    engine = FakeEngine()
    engine.gate.set()
    await store.put_many({KEYS[3].store_key: b"damaged and long enough"})
    assert numbers(await Baselines(store).canned([KEYS[3]], engine)) == [3.0]
    assert (await Baselines(store).look_up(canned=[KEYS[3]])).canned[KEYS[3]].tolist() == [3.0]


async def test_outputs_may_expire_in_the_store() -> None:
    now, engine = 0.0, FakeEngine()
    engine.gate.set()
    store = MemoryStore(clock=lambda: now)
    await Baselines(store, canned_ttl_s=60).canned(KEYS[:1], engine)
    await Baselines(store).canned(KEYS[1:2], engine)
    now = 61.0
    assert list((await Baselines(store).look_up(canned=KEYS)).canned) == [KEYS[1]]


async def test_no_keys_compute_nothing() -> None:
    engine = FakeEngine()
    assert await Baselines(MemoryStore()).canned([], engine) == {}
    assert engine.calls == []
