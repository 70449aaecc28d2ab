"""Global snapshots: which rows, how many prompts, frozen until rebuilt, and in and out of JSON."""

import json
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


async def test_the_same_rows_give_the_same_snapshot_in_any_order() -> None:
    baselines = Baselines(MemoryStore())
    counts = {str(number): 8 + number % 40 for number in range(120)}
    await put(baselines, counts)
    collected = [item async for item in baselines._prompts(f"rows/{MODEL}/sft/")]
    forwards, backwards = Pool(8), Pool(8)
    for pool, items in ((forwards, collected), (backwards, collected[::-1])):
        for prompt, rows in items:
            pool.add(prompt, rows)
    assert forwards.snapshot() == backwards.snapshot()


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
