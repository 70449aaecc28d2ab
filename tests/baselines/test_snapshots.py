"""Global snapshots: which rows, how many prompts, frozen until rebuilt, and in and out of JSON."""

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from reward_service.baselines import Baselines, Entry, Snapshot, SnapshotKey
from reward_service.baselines.snapshots import Pool
from reward_service.errors import (
    BaselineNotFound,
    BaselineUnusable,
    InvalidRequest,
    PolicyFrozen,
    PolicyRevisionConflict,
)
from reward_service.stores import MemoryStore, Store

MODEL = "sha256:" + "a" * 64
KEY = SnapshotKey(MODEL, "sft")
WHERE: dict[str, Any] = {"fingerprint": MODEL, "policy": "sft"}


async def put(baselines: Baselines, counts: dict[str, int], **changes: Any) -> None:
    """Give every prompt that many rows; the reward of a row is the number of its prompt."""
    entries = [Entry(prompt, [float(prompt)] * count) for prompt, count in counts.items()]
    given: dict[str, Any] = {"policy_revision": "r1", "labels": 1, "idempotency_key": "k"}
    await baselines.put(**WHERE, entries=entries, **(given | changes))


def prompts(count: int, rows: int) -> dict[str, int]:
    return {str(number): rows for number in range(count)}


def shares(snapshot: Snapshot) -> set[int]:
    """How many rows the prompts have in the snapshot."""
    _, counts = np.unique(snapshot.rows.outputs, return_counts=True)
    return set(counts.tolist())


@pytest.mark.parametrize(
    ("counts", "expected_prompts", "expected_share"),
    [
        (prompts(100, 64), 100, 40),
        (prompts(100, 12), 100, 12),
        (prompts(200, 64) | {"5": 9}, 200, 9),
        (prompts(150, 64) | {"5": 7, "6": 1}, 148, 27),
        (prompts(3000, 8), 3000, 1),
    ],
)
async def test_every_prompt_weighs_the_same(counts: dict[str, int], expected_prompts: int, expected_share: int) -> None:
    baselines = Baselines(MemoryStore())
    await put(baselines, counts)
    snapshot = await baselines.build_snapshot(**WHERE)
    assert snapshot.prompts == expected_prompts
    assert shares(snapshot) == {expected_share}
    assert len(snapshot.rows) == expected_prompts * expected_share <= 4096


async def test_more_prompts_than_rows_give_one_row_each_of_a_fair_sample(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, prompts(6000, 8))
    snapshot = await baselines.build_snapshot(**WHERE)
    assert (len(snapshot.rows), snapshot.prompts, shares(snapshot)) == (4096, 6000, {1})
    assert abs(snapshot.rows.outputs.mean() - 3000) < 150


@pytest.mark.parametrize("count", [120, 5000])
async def test_the_same_rows_give_the_same_snapshot_in_any_order(count: int) -> None:
    store = MemoryStore()
    await put(Baselines(store), {str(number): 8 + number % 40 for number in range(count)})
    stored = await store.scan(f"rows/{MODEL}/sft/", limit=count)
    forwards, backwards = Pool(8), Pool(8)
    forwards.add_page(stored)
    backwards.add_page(stored[::-1])
    assert forwards.snapshot() == backwards.snapshot()


async def test_references_that_were_sent_in_order_of_reward_give_a_fair_sample() -> None:
    baselines = Baselines(MemoryStore())
    entries = [Entry(str(number), [float(reward) for reward in range(16)]) for number in range(4096)]
    await baselines.put(**WHERE, policy_revision="r1", entries=entries, labels=1, idempotency_key="k")
    snapshot = await baselines.build_snapshot(**WHERE)
    assert abs(snapshot.rows.outputs.mean() - 7.5) < 0.3
    assert len(np.unique(snapshot.rows.outputs)) == 16


async def test_a_pool_holds_little_more_than_a_snapshot_needs() -> None:
    store, pool = MemoryStore(), Pool(8)
    await put(Baselines(store), prompts(1500, 256))
    page = await store.scan(f"rows/{MODEL}/sft/", limit=1500)
    tracemalloc.start()
    pool.add_page(page)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 5_000_000


class BusyStore(MemoryStore):
    """A store to which something happens after every page that is read of it."""

    after_page: Callable[[], Awaitable[None]] | None = None

    async def scan(self, prefix: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        page = await super().scan(prefix, after=after, limit=limit)
        if self.after_page is not None:
            await self.after_page()
        return page


async def test_other_work_goes_on_between_the_pages_of_a_build() -> None:
    store = BusyStore()
    await put(Baselines(store), prompts(3000, 8))
    ticks, seen = 0, []

    async def note() -> None:
        seen.append(ticks)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    store.after_page = note
    other_work = asyncio.create_task(tick())
    await Baselines(store).build_snapshot(**WHERE)
    other_work.cancel()
    assert len(seen) == len(set(seen)) == 4


async def test_a_snapshot_holds_no_rows_that_were_deleted_or_replaced_while_it_was_built() -> None:
    store = BusyStore()
    baselines = Baselines(store)
    await put(baselines, prompts(1200, 8))

    async def replace_and_delete() -> None:
        store.after_page = None
        await baselines.delete(**WHERE, prompt="0")
        entry = Entry("1", [-1.0] * 8)
        await baselines.put(**WHERE, policy_revision="r1", entries=[entry], labels=1)

    store.after_page = replace_and_delete
    snapshot = await baselines.build_snapshot(**WHERE)
    assert snapshot.prompts == 1199
    assert {0.0, 1.0}.isdisjoint(snapshot.rows.outputs.ravel())
    assert -1.0 in snapshot.rows.outputs


async def test_a_snapshot_of_a_policy_that_is_always_written_to_is_refused() -> None:
    store = BusyStore()
    baselines = Baselines(store)
    await put(baselines, prompts(100, 8))

    async def replace() -> None:
        await put(baselines, {"0": 8}, idempotency_key=None)

    store.after_page = replace
    with pytest.raises(BaselineUnusable, match="written to while its references were pooled, 3 times in a row"):
        await baselines.build_snapshot(**WHERE)
    assert not (await baselines.look_up(snapshots=[KEY])).snapshots


async def test_under_100_prompts_a_snapshot_is_refused_with_the_count() -> None:
    baselines = Baselines(MemoryStore())
    await put(baselines, prompts(99, 8))
    with pytest.raises(BaselineUnusable, match="at least 100 prompts with at least 8 references; there are 99"):
        await baselines.build_snapshot(**WHERE)
    await put(baselines, {"100": 4})
    with pytest.raises(BaselineUnusable, match="there are 99"):
        await baselines.build_snapshot(**WHERE)
    assert (await baselines.build_snapshot(**WHERE, at_least=4)).prompts == 100


async def test_a_snapshot_stays_until_it_is_rebuilt(store: Store) -> None:
    baselines, elsewhere = Baselines(store), Baselines(store)
    await put(baselines, prompts(100, 8))
    assert not (await elsewhere.look_up(snapshots=[KEY])).snapshots
    built = await baselines.build_snapshot(**WHERE)
    assert built.revision == 2
    await put(baselines, prompts(120, 8), idempotency_key="k2")
    assert (await elsewhere.look_up(snapshots=[KEY])).snapshots == {KEY: built}
    rebuilt = await baselines.build_snapshot(**WHERE)
    assert (rebuilt.prompts, rebuilt.revision) == (120, 4)
    assert (await elsewhere.look_up(snapshots=[KEY])).snapshots == {KEY: rebuilt}
    assert await baselines.build_snapshot(**WHERE) == rebuilt


async def test_a_frozen_policy_keeps_its_snapshot() -> None:
    baselines = Baselines(MemoryStore())
    await put(baselines, prompts(100, 8))
    await baselines.freeze("sft", True)
    with pytest.raises(PolicyFrozen):
        await baselines.build_snapshot(**WHERE)


async def test_deleting_the_policy_deletes_its_snapshot() -> None:
    baselines = Baselines(MemoryStore())
    await put(baselines, prompts(100, 8))
    await baselines.build_snapshot(**WHERE)
    gone = await baselines.delete(**WHERE)
    assert (gone.deleted, gone.state.records) == (100, 0)
    assert not (await baselines.look_up(snapshots=[KEY])).snapshots


async def exported() -> dict[str, Any]:
    baselines = Baselines(MemoryStore())
    await put(baselines, prompts(100, 8))
    await baselines.build_snapshot(**WHERE)
    document: dict[str, Any] = json.loads(json.dumps(await baselines.snapshot_document(**WHERE)))
    return document


async def test_a_snapshot_goes_through_json_and_loading_it_again_changes_nothing(store: Store) -> None:
    document = await exported()
    baselines = Baselines(store)
    loaded = await baselines.load_snapshot(document, **WHERE)
    assert (loaded.prompts, len(loaded.rows), loaded.revision) == (100, 800, 1)
    assert sorted(loaded.rows.outputs.tolist()) == sorted(document["rewards"])
    assert await Baselines(store).load_snapshot(document, **WHERE) == loaded
    state = (await baselines.look_up(policies=["sft"])).policies["sft"]
    assert (state.policy_revision, state.revision, state.records) == ("r1", 1, 1)
    with pytest.raises(PolicyRevisionConflict):
        await put(baselines, {"1": 1}, policy_revision="r2")


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"format": "other"}, InvalidRequest, "format is 'other'"),
        ({"fingerprint": "sha256:b"}, InvalidRequest, "is of the model sha256:b"),
        ({"prompts": 99}, BaselineUnusable, "at least 100 prompts behind it; there are 99"),
        ({"prompts": 1000}, InvalidRequest, "800 rewards for 1000 prompts"),
        ({"rewards": [[1.0], [1.0, 2.0]] * 60}, InvalidRequest, "unequal length"),
        ({"rewards": [[float("nan")]] * 100}, InvalidRequest, "finite"),
    ],
)
async def test_a_document_that_is_no_snapshot_of_the_model_is_refused(
    change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        await Baselines(MemoryStore()).load_snapshot(await exported() | change, **WHERE)


async def test_there_is_no_document_of_a_snapshot_that_was_not_built() -> None:
    with pytest.raises(BaselineNotFound, match="no global snapshot"):
        await Baselines(MemoryStore()).snapshot_document(**WHERE)
