"""Look-ups: one round trip, never a stale value, and a cache that stays small."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reward_service.baselines import Baselines, CannedKey, Entry, Lookup, PolicyState, RowsKey, SnapshotKey
from reward_service.baselines.cache import OVERHEAD, Cache, Cached
from reward_service.stores import MemoryStore, SqliteStore, Values

MODEL = "sha256:" + "a" * 64


class CountingStore(MemoryStore):
    """A store that notes which keys each read asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[list[str]] = []

    async def get_many(self, keys: Sequence[str]) -> Values:
        self.reads.append(list(keys))
        return await super().get_many(keys)


def key(prompt: str, policy: str = "sft") -> RowsKey:
    return RowsKey(MODEL, policy, prompt)


async def put(baselines: Baselines, prompt: str, *rewards: float, policy: str = "sft") -> None:
    entries = [Entry(prompt, rewards)]
    await baselines.put(fingerprint=MODEL, policy=policy, policy_revision=None, entries=entries, labels=1)


def rewards(found: Lookup, asked: RowsKey) -> list[float] | None:
    return sorted(found.rows[asked].rows.outputs[:, 0]) if asked in found.rows else None


async def test_a_request_takes_one_round_trip_for_everything_and_then_only_for_the_states() -> None:
    store = CountingStore()
    baselines = Baselines(store)
    await put(baselines, "p", 1)
    await put(baselines, "q", 2, policy="base")
    asked = {
        "rows": [key("p"), key("q", "base"), key("p"), key("missing")],
        "canned": [CannedKey(MODEL, "No.", "p")],
        "policies": ["other"],
        "snapshots": [SnapshotKey(MODEL, "sft")],
    }
    found = await baselines.look_up(**asked)  # type: ignore[arg-type]
    assert len(store.reads) == 1
    assert len(store.reads[0]) == 3 + 3 + 1 + 1
    assert (rewards(found, key("p")), rewards(found, key("q", "base")), rewards(found, key("missing"))) == (
        [1],
        [2],
        None,
    )
    assert found.policies == {"sft": PolicyState(None, False, 1, 1), "base": PolicyState(None, False, 1, 1)} | {
        "other": PolicyState()
    }
    assert not found.canned
    assert not found.snapshots
    again = await baselines.look_up(rows=asked["rows"])  # type: ignore[arg-type]
    assert sorted(store.reads[1]) == ["policy/base", "policy/sft"]
    assert again.rows == found.rows


async def test_a_request_that_needs_nothing_asks_the_store_nothing() -> None:
    store = CountingStore()
    await Baselines(store).look_up()
    assert store.reads == []


async def test_canned_outputs_need_no_state() -> None:
    store = CountingStore()
    baselines = Baselines(store)
    asked = CannedKey(MODEL, "No.", "p")

    async def compute(keys: list[CannedKey]) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return [np.array([1.5])]

    await baselines.canned([asked], compute)
    store.reads.clear()
    assert (await baselines.look_up(canned=[asked])).canned[asked].tolist() == [1.5]
    assert store.reads == []
    assert (await Baselines(store).look_up(canned=[asked])).canned[asked].tolist() == [1.5]
    assert store.reads == [[asked.store_key]]


async def test_a_write_costs_the_next_request_a_second_round_trip_for_that_policy_only() -> None:
    store = CountingStore()
    baselines = Baselines(store)
    keys = [key("p"), key("missing"), key("p", "base")]
    await baselines.look_up(rows=keys)
    await put(baselines, "missing", 3)
    store.reads.clear()
    found = await baselines.look_up(rows=keys)
    assert rewards(found, key("missing")) == [3]
    assert [len(read) for read in store.reads] == [2, 3]
    await baselines.look_up(rows=keys)
    assert len(store.reads) == 3


async def test_another_process_on_the_same_file_never_makes_a_look_up_stale(tmp_path: Path) -> None:
    stores = SqliteStore(tmp_path / "store.db"), SqliteStore(tmp_path / "store.db")
    here, there = map(Baselines, stores)
    for value in range(5):
        await put(there, "p", value)
        found = await here.look_up(rows=[key("p"), key("q")])
        assert (rewards(found, key("p")), rewards(found, key("q"))) == ([value], None)
        assert found.policies["sft"].revision == value + 1
    await put(there, "q", 9)
    assert rewards(await here.look_up(rows=[key("p"), key("q")]), key("q")) == [9]
    await there.delete(fingerprint=MODEL, policy="sft")
    assert not (await here.look_up(rows=[key("p"), key("q")])).rows
    for store in stores:
        await store.close()


class RacingStore(MemoryStore):
    """A store to which another process writes between two reads of one look-up."""

    def __init__(self) -> None:
        super().__init__()
        self.racing = False

    async def get_many(self, keys: Sequence[str]) -> Values:
        values = await super().get_many(keys)
        if self.racing:
            self.racing = False
            await put(Baselines(self), "p", 3)
            await put(Baselines(self), "q", 3)
        return values


async def test_all_rows_of_a_policy_are_of_one_revision_though_a_write_comes_between_the_round_trips() -> None:
    store = RacingStore()
    baselines = Baselines(store)
    await put(baselines, "p", 1)
    await baselines.look_up(rows=[key("p")])
    await put(Baselines(store), "p", 2)
    store.racing = True
    found = await baselines.look_up(rows=[key("p"), key("q")])
    assert (rewards(found, key("p")), rewards(found, key("q"))) == ([3], [3])
    assert found.policies["sft"].revision == 4


async def test_a_cache_too_small_for_anything_only_costs_time() -> None:
    store = CountingStore()
    baselines = Baselines(store, cache_bytes=1)
    await put(baselines, "p", 1)
    for _ in range(2):
        assert rewards(await baselines.look_up(rows=[key("p")]), key("p")) == [1]
    assert [len(read) for read in store.reads] == [2, 2]


def test_the_cache_lets_go_of_what_was_used_longest_ago() -> None:
    cache = Cache(max_bytes=2 * (OVERHEAD + 8))
    for name in "ab":
        cache.put(name, Cached(np.zeros(1), None))
    assert cache.get("a") is not None
    cache.put("c", Cached(None, None))
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]
    for revision in range(100):
        cache.put("c", Cached(None, (revision, "")))
    assert len(cache) == 2
