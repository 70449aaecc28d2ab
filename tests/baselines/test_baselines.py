"""Baselines through their front door: writes, revisions, freezing, restarts, deletes."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from reward_service.baselines import Baselines, Deletion, Entry, PolicyState, RowsKey, SnapshotKey
from reward_service.baselines.keys import policy_key
from reward_service.errors import (
    BaselineNotFound,
    InvalidRequest,
    PolicyFrozen,
    PolicyRevisionConflict,
    StoreUnavailable,
)
from reward_service.stores import SqliteStore, Store
from tests.baselines.writing import MODEL, OTHER_MODEL, put, rewards_of, rows_of, state_of


async def test_64_rewards_give_the_quantile_of_numpy_after_a_restart_too(tmp_path: Path) -> None:
    rewards = np.random.default_rng(0).normal(size=64)
    store = SqliteStore(tmp_path / "store.db")
    await put(Baselines(store), Entry("p", rewards.tolist()))
    before = await rewards_of(Baselines(store))
    await store.close()
    store = SqliteStore(tmp_path / "store.db")
    after = await rewards_of(Baselines(store))
    await store.close()
    assert np.quantile(before, 0.85) == np.quantile(rewards, 0.85)
    assert np.quantile(after, 0.85) == np.quantile(rewards, 0.85)


async def test_10_000_rewards_in_100_shuffled_merges_half_of_them_twice_are_the_rows_of_one_put(store: Store) -> None:
    generator = np.random.default_rng(0)
    rewards = generator.normal(size=10_000)
    baselines = Baselines(store)
    await put(baselines, Entry("once", rewards.tolist()), idempotency_key="K")
    parts = [indexes.tolist() for indexes in np.split(generator.permutation(10_000), 100)]
    order = [*range(100), *range(0, 100, 2)]
    generator.shuffle(order)
    for part in order:
        ids = [f"K:{index}" for index in parts[part]]
        entry = Entry("merged", rewards[parts[part]].tolist(), draw_ids=ids)
        await put(baselines, entry, mode="merge", idempotency_key=f"part-{part}")
    merged, once = await rows_of(baselines, "merged"), await rows_of(baselines, "once")
    assert merged == once
    assert once is not None
    assert len(once) == 256


async def test_concurrent_merges_lose_nothing(store: Store) -> None:
    baselines = Baselines(store)
    await asyncio.gather(*(put(baselines, Entry("p", [i]), mode="merge", idempotency_key=f"{i}") for i in range(50)))
    assert await rewards_of(baselines) == list(range(50))


async def test_a_put_says_what_it_changed(store: Store) -> None:
    baselines = Baselines(store)
    first = await put(baselines, Entry("p", [1]), Entry("q", [2]), idempotency_key="a")
    assert (first.written, first.unchanged, first.state) == (2, 0, PolicyState("r1", False, 1, 2))
    second = await put(baselines, Entry("p", [1]), Entry("r", [3]), idempotency_key="a")
    assert (second.written, second.unchanged, second.state) == (1, 1, PolicyState("r1", False, 2, 3))


async def test_rows_carry_the_revision_of_the_write_that_changed_them(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]))
    await put(baselines, Entry("q", [1]))
    keys = [RowsKey(MODEL, "sft", prompt) for prompt in "pq"]
    found = (await baselines.look_up(rows=keys)).rows
    assert [found[key].revision for key in keys] == [1, 2]


async def test_models_and_policies_are_kept_apart(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]))
    assert await rows_of(baselines, fingerprint=OTHER_MODEL) is None
    assert await rows_of(baselines, policy="sf") is None


@pytest.mark.parametrize(("bound", "other"), [("r1", "r2"), ("r1", None), (None, "r1")])
async def test_another_policy_revision_is_refused_naming_both(
    store: Store, bound: str | None, other: str | None
) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]), policy_revision=bound)
    with pytest.raises(PolicyRevisionConflict) as caught:
        await put(baselines, Entry("q", [2]), policy_revision=other, fingerprint=OTHER_MODEL)
    for revision in (bound, other):
        assert ("no stated revision" if revision is None else f"revision {revision!r}") in caught.value.detail
    assert (await state_of(baselines)).revision == 1


async def test_a_frozen_policy_refuses_writes_until_it_is_unfrozen(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]))
    assert await baselines.freeze("sft", True) == PolicyState("r1", True, 1, 1)
    assert await baselines.freeze("sft", True) == PolicyState("r1", True, 1, 1)
    with pytest.raises(PolicyFrozen, match="'sft' are frozen at revision 1"):
        await put(baselines, Entry("p", [2]))
    with pytest.raises(PolicyFrozen):
        await baselines.delete(fingerprint=MODEL, policy="sft")
    assert await rewards_of(baselines) == [1]
    await baselines.freeze("sft", False)
    assert (await put(baselines, Entry("p", [2]))).state.revision == 2


async def test_a_policy_without_baselines_cannot_be_frozen(store: Store) -> None:
    with pytest.raises(BaselineNotFound, match="'sfl' has no baselines"):
        await Baselines(store).freeze("sfl", True)


async def test_one_bad_entry_writes_nothing(store: Store) -> None:
    baselines = Baselines(store)
    with pytest.raises(InvalidRequest, match=r"entries\[1\]"):
        await put(baselines, Entry("p", [1]), Entry("q", []))
    await put(baselines, Entry("q", [1]))
    with pytest.raises(InvalidRequest, match="1 and 2 outputs"):
        await put(baselines, Entry("p", [[1, 2]]), Entry("q", [[1, 2]]), labels=2, mode="merge")
    assert await rows_of(baselines, "p") is None
    assert (await state_of(baselines)).revision == 1


async def test_deleting_a_prompt_leaves_the_others(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]), Entry("q", [2]))
    gone = await baselines.delete(fingerprint=MODEL, policy="sft", prompt="p")
    assert gone == Deletion(1, PolicyState("r1", False, 2, 1))
    assert (await baselines.delete(fingerprint=MODEL, policy="sft", prompt="p")).deleted == 0
    assert await rewards_of(baselines, "p") == []
    assert await rewards_of(baselines, "q") == [2]
    assert (await state_of(baselines)).revision == 2


async def test_deleting_a_policy_under_all_models_frees_its_name_but_the_revision_goes_on(store: Store) -> None:
    baselines = Baselines(store)
    entries = [Entry(f"p{i}", [i]) for i in range(1500)]
    await put(baselines, *entries)
    await put(baselines, Entry("p", [1]), fingerprint=OTHER_MODEL)
    await put(baselines, Entry("p", [1]), policy="sft-2")
    gone = await baselines.delete(fingerprint=MODEL, policy="sft")
    assert (gone.deleted, gone.state.records, gone.state.policy_revision) == (1500, 1, "r1")
    gone = await baselines.delete(fingerprint=OTHER_MODEL, policy="sft")
    assert (gone.deleted, gone.state.records, gone.state.policy_revision) == (1, 0, None)
    assert (await put(baselines, Entry("p", [1]), policy_revision="r2")).state == PolicyState("r2", False, 6, 1)
    assert await rows_of(baselines, policy="sft-2") is not None


async def test_a_delete_that_names_no_model_frees_a_policy_whose_model_is_gone(store: Store) -> None:
    baselines = Baselines(store)
    gone, snapshot_only = OTHER_MODEL, "sha256:" + "c" * 64
    await put(baselines, *(Entry(f"p{i}", [i] * 8) for i in range(1100)), fingerprint=gone)
    await baselines.build_snapshot(fingerprint=gone, policy="sft")
    document = await baselines.snapshot_document(fingerprint=gone, policy="sft")
    await baselines.load_snapshot({**document, "fingerprint": snapshot_only}, fingerprint=snapshot_only, policy="sft")
    await put(baselines, Entry("p", [1]))
    await put(baselines, Entry("p", [1]), policy="sft-2", fingerprint=gone)
    await baselines.delete(fingerprint=MODEL, policy="sft")
    with pytest.raises(
        PolicyRevisionConflict, match=r"1102 record\(s\) under all models.*by a delete that names no model"
    ):
        await put(baselines, Entry("p", [1]), policy_revision="r2")
    deletion = await baselines.delete(fingerprint=None, policy="sft")
    assert (deletion.deleted, deletion.state.records, deletion.state.policy_revision) == (1100, 0, None)
    snapshots = [SnapshotKey(model, "sft") for model in (gone, snapshot_only)]
    assert not (await baselines.look_up(snapshots=snapshots)).snapshots
    assert (await put(baselines, Entry("p", [1]), policy_revision="r2")).state.records == 1
    assert await rows_of(baselines, policy="sft-2", fingerprint=gone) is not None


async def test_a_prompt_can_be_deleted_under_all_models(store: Store) -> None:
    baselines = Baselines(store)
    for model in (MODEL, OTHER_MODEL):
        await put(baselines, Entry("p", [1]), Entry("q", [2]), fingerprint=model)
    deletion = await baselines.delete(fingerprint=None, policy="sft", prompt="p")
    assert (deletion.deleted, deletion.state.records) == (2, 2)
    assert (await baselines.delete(fingerprint=None, policy="none", prompt="p")).deleted == 0


async def test_whether_a_write_would_be_refused_can_be_asked_before_it(store: Store) -> None:
    baselines = Baselines(store)
    await baselines.check_writable("sft", "r1")
    await put(baselines, Entry("p", [1]))
    await baselines.check_writable("sft", "r1")
    with pytest.raises(PolicyRevisionConflict, match="'r2'"):
        await baselines.check_writable("sft", "r2")
    await Baselines(store).freeze("sft", True)
    with pytest.raises(PolicyFrozen):
        await baselines.check_writable("sft", "r1")


async def test_damaged_rows_and_a_closed_store_are_unavailable_not_missing(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]))
    await store.put_many({RowsKey(MODEL, "sft", "p").store_key: b"garbage and more"})
    with pytest.raises(StoreUnavailable, match="damaged"):
        await rows_of(baselines)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await put(baselines, Entry("p", [1]), mode="merge")
    await store.put_many({policy_key("sft"): b""})
    with pytest.raises(StoreUnavailable, match="damaged"):
        await state_of(baselines)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await rows_of(baselines)
