"""Submissions end whatever happens to the replica, the store or the caller, and are found from every replica."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reward_service.errors import Overloaded, StoreUnavailable
from reward_service.stores import MemoryStore, open_store
from reward_service.submissions import KEPT_S, LEASE_S, MOST_BYTES, Found, Submissions
from tests.stores.clocks import SetClock


class Failing(MemoryStore):
    """A store that fails while `is_down`."""

    is_down = False

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        if self.is_down:
            raise StoreUnavailable("the store is down")
        await super().put_many(items, ttl_s=ttl_s)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(clock: SetClock) -> Failing:
    return Failing(clock=clock)


@pytest.fixture
async def here(store: Failing) -> AsyncIterator[Submissions]:
    submissions = Submissions(store, grace_s=0.01)
    yield submissions
    await submissions.close()


@pytest.fixture
async def elsewhere(store: Failing) -> AsyncIterator[Submissions]:
    submissions = Submissions(store, grace_s=0.01)
    yield submissions
    await submissions.close()


async def seven() -> dict[str, Any]:
    return {"reward": 7.0}


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def submitted(submissions: Submissions, work: Any = seven, size: int = 100) -> str:
    return await submissions.submit(work, size=size, timeout_s=60)


async def test_an_outcome_is_found_here_and_elsewhere(here: Submissions, elsewhere: Submissions) -> None:
    name = await submitted(here)
    assert await here.find(name, wait_s=10) == Found(outcome={"reward": 7.0})
    assert await elsewhere.find(name, wait_s=10) == Found(outcome={"reward": 7.0})
    assert await here.find(name, wait_s=10) == Found(outcome={"reward": 7.0})


async def test_work_under_way_is_known_everywhere(here: Submissions, elsewhere: Submissions) -> None:
    name = await submitted(here, never)
    assert await here.find(name, wait_s=0.01) == Found(is_under_way=True)
    assert await elsewhere.find(name, wait_s=10) == Found(is_under_way=True)


async def test_a_replica_that_stops_renewing_its_lease_loses_its_work(
    here: Submissions, elsewhere: Submissions, clock: SetClock
) -> None:
    name, done = await submitted(here, never), await submitted(here)
    await here.find(done, wait_s=10)
    await clock.advance(LEASE_S + 1)
    assert await elsewhere.find(name, wait_s=10) == Found()
    assert await elsewhere.find(done, wait_s=10) == Found(outcome={"reward": 7.0})


async def test_the_lease_is_renewed_while_the_replica_lives(store: Failing, clock: SetClock) -> None:
    here, elsewhere = Submissions(store, lease_s=0.06, grace_s=0.01), Submissions(store)
    name = await submitted(here, never)
    for _ in range(5):
        await asyncio.sleep(0.04)
        await clock.advance(0.04)
        assert await elsewhere.find(name, wait_s=0) == Found(is_under_way=True)
    await here.close()
    assert await elsewhere.find(name, wait_s=0) == Found()
    assert await here.find(name, wait_s=0) == Found()


async def test_an_unknown_and_an_expired_submission_are_neither(here: Submissions, clock: SetClock) -> None:
    assert await here.find("unknown", wait_s=10) == Found()
    name = await submitted(here)
    assert await here.find(name, wait_s=10) != Found()
    await clock.advance(KEPT_S + 1)
    assert await here.find(name, wait_s=10) == Found()


async def test_work_that_ends_while_it_is_looked_for_is_found(clock: SetClock) -> None:
    """An answer of the store may be old when it arrives."""

    class Late(MemoryStore):
        async def get_many(self, keys: Any) -> Any:
            values = await super().get_many(keys)
            gate.set()
            await asyncio.sleep(0.02)
            return values

    async def gated() -> dict[str, Any]:
        await gate.wait()
        return {"reward": 3.0}

    gate = asyncio.Event()
    here = Submissions(Late(clock=clock), grace_s=0.01)
    name = await submitted(here, gated)
    assert await here.find(name, wait_s=0) == Found(outcome={"reward": 3.0})
    await here.close()


async def test_work_is_ended_with_the_replica_but_not_before_its_time_of_grace(store: Failing) -> None:
    here = Submissions(store, grace_s=5)
    ended = asyncio.Event()

    async def short() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        ended.set()
        return {"reward": 1.0}

    name = await submitted(here, short)
    await here.close()
    assert ended.is_set()
    assert await Submissions(store).find(name, wait_s=0) == Found(outcome={"reward": 1.0})


async def test_many_first_submissions_at_once_leave_nothing_behind(store: Failing) -> None:
    before = asyncio.all_tasks()
    here = Submissions(store, grace_s=0.01)
    names = await asyncio.gather(*(submitted(here, never) for _ in range(20)))
    assert len(set(names)) == 20
    await here.close()
    assert asyncio.all_tasks() == before


async def test_too_much_at_once_is_refused_and_room_comes_back(here: Submissions) -> None:
    gate = asyncio.Event()

    async def gated() -> dict[str, Any]:
        await gate.wait()
        return {}

    names = [await submitted(here, gated, size=MOST_BYTES // 2) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 submissions wait already"):
        await submitted(here)
    gate.set()
    for name in names:
        await here.find(name, wait_s=10)
    await submitted(here)


async def test_a_store_that_is_down_refuses_submissions_and_takes_no_room(here: Submissions, store: Failing) -> None:
    store.is_down = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await submitted(here, size=MOST_BYTES)
    store.is_down = False
    assert await here.find(await submitted(here, size=MOST_BYTES), wait_s=10) == Found(outcome={"reward": 7.0})


async def test_an_outcome_waits_for_the_store_to_come_back(here: Submissions, store: Failing) -> None:
    async def while_it_fails() -> dict[str, Any]:
        store.is_down = True
        return {"reward": 2.0}

    name = await submitted(here, while_it_fails)
    assert await here.find(name, wait_s=0.05) == Found(is_under_way=True)
    store.is_down = False
    assert await here.find(name, wait_s=10) == Found(outcome={"reward": 2.0})


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_replicas_share_what_they_accepted_through_a_real_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/store.db" if kind == "sqlite" else request.getfixturevalue("redis_server").url
    stores = [open_store(url, timeout_s=30), open_store(url, timeout_s=30)]
    here, elsewhere = (Submissions(store, lease_s=0.3, grace_s=0.01) for store in stores)
    done, open_ended = await submitted(here), await submitted(here, never)
    assert await here.find(done, wait_s=10) == Found(outcome={"reward": 7.0})
    await asyncio.sleep(0.6)
    assert await elsewhere.find(done, wait_s=0) == Found(outcome={"reward": 7.0})
    async with asyncio.timeout(30):  # the lease may be late, but one that nobody renews is never there again
        while await elsewhere.find(open_ended, wait_s=0) != Found(is_under_way=True):
            await asyncio.sleep(0.01)
    await here.close()
    assert await elsewhere.find(open_ended, wait_s=0) == Found()
    await elsewhere.close()
    for store in stores:
        await store.close()
