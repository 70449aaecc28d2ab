"""Two replicas on one store score a canned response once, and one that dies or fails is replaced."""

import asyncio
from collections.abc import Mapping

import pytest

from reward_service.baselines import Baselines, CannedKey, leases
from reward_service.errors import EngineFailed
from reward_service.stores import MemoryStore, Store, open_store
from tests.baselines.canned_engine import KEYS, FakeEngine, numbers, settle
from tests.redis_server import RedisServer
from tests.stores.clocks import PATIENT_S, RedisClock

LIMIT_S = 60.0


def lease(key: CannedKey) -> str:
    return f"lease/{key.store_key}"


async def begun(*engines: FakeEngine) -> None:
    """Wait until one of the engines is asked."""
    async with asyncio.timeout(LIMIT_S):
        while not any(engine.calls for engine in engines):
            await asyncio.sleep(0.01)


async def test_200_requests_at_two_replicas_are_one_computation(store: Store) -> None:
    here, there = Baselines(store), Baselines(store)
    engines = FakeEngine(), FakeEngine()
    requests = [
        asyncio.create_task(replica.canned(KEYS[:2], engine))
        for _ in range(100)
        for replica, engine in zip((here, there), engines, strict=True)
    ]
    await begun(*engines)
    await asyncio.sleep(0.1)
    for engine in engines:
        engine.gate.set()
    results = await asyncio.gather(*requests)
    assert all(numbers(result) == [0.0, 1.0] for result in results)
    assert engines[0].calls + engines[1].calls == [KEYS[:2]]
    assert await store.get_many([lease(key) for key in KEYS[:2]]) == [None, None]


async def test_replicas_that_miss_other_keys_share_the_work(store: Store) -> None:
    engines = FakeEngine(), FakeEngine()
    first = asyncio.create_task(Baselines(store).canned(KEYS[:4], engines[0]))
    await begun(engines[0])
    second = asyncio.create_task(Baselines(store).canned(KEYS[2:6], engines[1]))
    await begun(engines[1])
    engines[1].gate.set()
    engines[0].gate.set()
    assert sorted(numbers(await first)) == [0, 1, 2, 3]
    assert sorted(numbers(await second)) == [2, 3, 4, 5]
    assert (engines[0].calls, engines[1].calls) == ([KEYS[:4]], [KEYS[4:6]])


async def test_what_another_replica_stored_since_the_look_up_is_not_scored_again(store: Store) -> None:
    here, engines = Baselines(store), (FakeEngine(), FakeEngine())
    assert not (await here.look_up(canned=KEYS[:1])).canned
    for engine in engines:
        engine.gate.set()
    await Baselines(store).canned(KEYS[:1], engines[0])
    assert numbers(await here.canned(KEYS[:1], engines[1])) == [0.0]
    assert engines[1].calls == []


async def test_a_replica_that_fails_gives_up_its_lease_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 10 * LIMIT_S)
    failing, engine = FakeEngine(EngineFailed("died")), FakeEngine()
    first = asyncio.create_task(Baselines(store).canned(KEYS[:1], failing))
    await begun(failing)
    second = asyncio.create_task(Baselines(store).canned(KEYS[:1], engine))
    engine.gate.set()
    failing.gate.set()
    with pytest.raises(EngineFailed):
        await first
    async with asyncio.timeout(LIMIT_S):
        assert numbers(await second) == [0.0]


async def test_a_replica_whose_callers_all_left_gives_up_its_lease_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 10 * LIMIT_S)
    left, engine = FakeEngine(), FakeEngine()
    first = asyncio.create_task(Baselines(store).canned(KEYS[:1], left))
    await begun(left)
    second = asyncio.create_task(Baselines(store).canned(KEYS[:1], engine))
    engine.gate.set()
    first.cancel()
    async with asyncio.timeout(LIMIT_S):
        assert numbers(await second) == [0.0]


async def test_a_replica_that_died_is_replaced_when_its_lease_ends(store: Store) -> None:
    engine = FakeEngine()
    engine.gate.set()
    await store.add_many({lease(KEYS[0]): b"dead"}, ttl_s=600)
    asking = asyncio.create_task(Baselines(store).canned(KEYS[:2], engine))
    await begun(engine)
    await store.put_many({lease(KEYS[0]): b"dead"}, ttl_s=0.2)
    assert sorted(numbers(await asking)) == [0.0, 1.0]
    assert engine.calls == [[KEYS[1]], [KEYS[0]]]


async def test_a_lease_is_renewed_for_as_long_as_the_computation_takes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = open_store(redis_server.url, timeout_s=PATIENT_S), RedisClock(redis_server)
    monkeypatch.setattr(leases, "LEASE_S", 1000.0)
    monkeypatch.setattr(leases, "RENEWED_EVERY_S", 0.05)
    slow, other = FakeEngine(), FakeEngine()
    first = asyncio.create_task(Baselines(store).canned(KEYS[:1], slow))
    await begun(slow)
    second = asyncio.create_task(Baselines(store).canned(KEYS[:1], other))
    for _ in range(3):
        await clock.advance(600)
        async with asyncio.timeout(LIMIT_S):
            while redis_server.command("PTTL", f"{{rw}}{lease(KEYS[0])}") < 900_000:
                await asyncio.sleep(0.01)
    slow.gate.set()
    assert numbers(await first) == numbers(await second) == [0.0]
    assert other.calls == []
    await store.close()


async def test_a_deadline_ends_the_wait_for_another_replica(store: Store) -> None:
    engine = FakeEngine()
    await store.add_many({lease(KEYS[0]): b"other"}, ttl_s=60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await Baselines(store).canned(KEYS[:1], engine)
    assert engine.calls == []


async def test_a_lease_that_another_replica_took_over_is_left_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEWED_EVERY_S", 600.0)
    engine = FakeEngine()
    first = asyncio.create_task(Baselines(store).canned(KEYS[:1], engine))
    await begun(engine)
    await store.put_many({lease(KEYS[0]): b"other"}, ttl_s=60)
    engine.gate.set()
    assert numbers(await first) == [0.0]
    assert await store.get_many([lease(KEYS[0])]) == [b"other"]


class SlowToClaim(MemoryStore):
    """A store whose answer to a claim is on its way when the caller leaves."""

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        await super().add_many(items, ttl_s=ttl_s)
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_claim_that_is_cancelled_on_its_way_is_given_back() -> None:
    store, engine = SlowToClaim(), FakeEngine()
    first = asyncio.create_task(Baselines(store).canned(KEYS[:1], engine))
    await settle()
    assert await store.get_many([lease(KEYS[0])]) != [None]
    first.cancel()
    await settle()
    assert await store.get_many([lease(KEYS[0])]) == [None]


class BrokenAfterClaim(MemoryStore):
    """A store that breaks as soon as a lease was taken."""

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        added = await super().add_many(items, ttl_s=ttl_s)
        await self.close()
        return added


async def test_a_store_that_breaks_while_a_response_is_scored_takes_nothing_from_the_answer() -> None:
    engine = FakeEngine()
    engine.gate.set()
    assert numbers(await Baselines(BrokenAfterClaim()).canned(KEYS[:2], engine)) == [0.0, 1.0]
