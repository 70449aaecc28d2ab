"""A store that lost writes, or everything: nothing kept in memory is believed, and lost is not "missing"."""

import pytest

from reward_service.baselines import Baselines, Entry, RowsKey
from reward_service.baselines.keys import policy_key
from reward_service.errors import StoreUnavailable
from reward_service.stores import Store, open_store
from tests.baselines.writing import MODEL, put, rewards_of, state_of
from tests.redis_server import RedisServer
from tests.stores.clocks import PATIENT_S


async def test_rows_of_before_are_not_believed_when_the_revision_is_reached_again(store: Store) -> None:
    """A server that died came back without its latest write, and another write took the number of that revision."""
    here, there = Baselines(store), Baselines(store)
    keys = [policy_key("sft"), RowsKey(MODEL, "sft", "p").store_key]
    await put(there, Entry("p", [1]))
    kept_by_the_server = await store.get_many(keys)
    await put(there, Entry("p", [2]))
    assert await rewards_of(here) == [2]
    await store.update(keys, lambda _: kept_by_the_server)
    assert await rewards_of(here) == [1]
    await store.update(keys, lambda _: kept_by_the_server)
    await put(there, Entry("p", [2]))
    assert await rewards_of(here) == [2]
    await store.update(keys, lambda _: kept_by_the_server)
    await put(there, Entry("q", [3]))
    assert (await state_of(here)).revision == 2
    assert await rewards_of(here) == [1]


async def test_a_store_that_lost_everything_is_unavailable_and_not_empty(redis_server: RedisServer) -> None:
    store = open_store(redis_server.url, timeout_s=PATIENT_S)
    here = Baselines(store)
    await put(here, Entry("p", [1]))
    assert await rewards_of(here) == [1]
    assert await rewards_of(here, "q") == []
    redis_server.command("FLUSHALL")
    for prompt in "pq":
        with pytest.raises(StoreUnavailable, match="the store lost the baselines of policy 'sft'; store them again"):
            await rewards_of(here, prompt)
    await here.check_writable("sft", "r2")
    await put(Baselines(store), Entry("q", [7]), policy_revision="r2")
    assert (await state_of(here)).revision == 1
    assert await rewards_of(here) == []
    assert await rewards_of(here, "q") == [7]
    await store.close()


async def test_deleting_a_policy_is_not_losing_it(store: Store) -> None:
    here = Baselines(store)
    await put(here, Entry("p", [1]))
    assert await rewards_of(here) == [1]
    await Baselines(store).delete(fingerprint=None, policy="sft")
    assert await rewards_of(here) == []
