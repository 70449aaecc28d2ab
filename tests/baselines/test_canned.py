"""Canned responses: scored once however many ask, kept, and never poisoned by one caller's failure."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_service.baselines import Baselines, CannedKey
from reward_service.errors import (
    ConversationTooLong,
    DeadlineExceeded,
    EngineFailed,
    NotFinite,
    Overloaded,
    ServiceError,
    StoreUnavailable,
)
from reward_service.stores import MemoryStore, Store

Answer = NDArray[np.float64] | ServiceError
KEYS = [CannedKey("sha256:" + "a" * 64, "I can't help with that.", f"{i:064}") for i in range(8)]


class FakeEngine:
    """Scores keys when the gate opens; fails first with the failures given."""

    def __init__(self, *failures: Exception) -> None:
        self.calls: list[list[CannedKey]] = []
        self.gate = asyncio.Event()
        self.failures = list(failures)
        self.cancelled = 0

    async def __call__(self, keys: list[CannedKey]) -> Sequence[Answer]:
        self.calls.append(keys)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return [np.array([float(key.prompt)]) for key in keys]


def numbers(results: dict[CannedKey, Answer]) -> list[float]:
    return [float(outputs[0]) for outputs in results.values() if not isinstance(outputs, ServiceError)]


async def settle() -> None:
    """Let everything run that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)


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


async def test_a_store_that_cannot_keep_the_outputs_is_an_error() -> None:
    store = MemoryStore()
    engine = FakeEngine()
    engine.gate.set()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await Baselines(store).canned(KEYS[:1], engine)


async def test_no_keys_compute_nothing() -> None:
    engine = FakeEngine()
    assert await Baselines(MemoryStore()).canned([], engine) == {}
    assert engine.calls == []
