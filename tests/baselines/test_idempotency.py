"""Idempotency keys: a replay changes nothing however late, and a used key never hides another write."""

from typing import Any

import pytest

from reward_service.baselines import Baselines, Entry
from reward_service.errors import IdempotencyConflict
from reward_service.stores import Store
from tests.baselines.writing import put, rewards_of, state_of


@pytest.mark.parametrize("mode", ["replace", "merge"])
async def test_a_late_replay_changes_nothing_though_another_replace_came_between(store: Store, mode: str) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]), mode=mode, idempotency_key="first")
    await put(baselines, Entry("p", [2]), idempotency_key="second")
    replay = await put(baselines, Entry("p", [1]), mode=mode, idempotency_key="first")
    assert (replay.written, replay.unchanged, replay.state.revision) == (0, 1, 2)
    assert await rewards_of(baselines) == [2]


async def test_parts_of_one_sample_may_share_an_idempotency_key(store: Store) -> None:
    baselines = Baselines(store)
    for part in (["K:0"], ["K:1"], ["K:0"]):
        await put(baselines, Entry("p", [float(part[0][-1])], draw_ids=part), mode="merge", idempotency_key="K")
    assert await rewards_of(baselines) == [0, 1]


async def test_a_put_without_idempotency_key_is_new_each_time(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]), mode="merge")
    await put(baselines, Entry("p", [1]), mode="merge")
    assert await rewards_of(baselines) == [1, 1]


@pytest.mark.parametrize("other", [Entry("p", [9, 9]), Entry("p", [5]), Entry("p", [5, 5], draw_ids=["x", "y"])])
async def test_another_replace_under_a_used_key_is_refused_and_writes_nothing(store: Store, other: Entry) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1, 1]), idempotency_key="A")
    await put(baselines, Entry("p", [5, 5]), idempotency_key="B")
    with pytest.raises(IdempotencyConflict, match="'B' was used for another write of the prompt p of policy 'sft'"):
        await put(baselines, Entry("q", [1]), other, idempotency_key="B")
    assert (await rewards_of(baselines), await rewards_of(baselines, "q")) == ([5, 5], [])
    assert (await state_of(baselines)).revision == 2


async def test_the_key_of_a_merge_cannot_name_a_replace(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1]), mode="merge", idempotency_key="A")
    with pytest.raises(IdempotencyConflict):
        await put(baselines, Entry("p", [1]), idempotency_key="A")


async def test_a_merge_of_the_same_draws_with_other_rewards_under_a_used_key_is_refused(store: Store) -> None:
    baselines = Baselines(store)
    await put(baselines, Entry("p", [1, 2]), mode="merge", idempotency_key="A")
    with pytest.raises(IdempotencyConflict):
        await put(baselines, Entry("p", [1, 3]), mode="merge", idempotency_key="A")
    assert await rewards_of(baselines) == [1, 2]


@pytest.mark.parametrize("mode", ["replace", "merge"])
async def test_a_replay_in_another_order_and_split_is_the_same_write(store: Store, mode: str) -> None:
    baselines = Baselines(store)
    how: dict[str, Any] = {"mode": mode, "idempotency_key": "A"}
    await put(baselines, Entry("p", [1, 2, 3], draw_ids=["a", "b", "c"]), **how)
    split = Entry("p", [3], draw_ids=["c"]), Entry("p", [2, 1], draw_ids=["b", "a"])
    assert (await put(baselines, *split, **how)).unchanged == 1


@pytest.mark.parametrize("mode", ["replace", "merge"])
async def test_responses_scored_again_are_the_same_write_though_the_last_bits_differ(store: Store, mode: str) -> None:
    baselines = Baselines(store)
    how: dict[str, Any] = {"mode": mode, "idempotency_key": "A"}
    await put(baselines, Entry("p", [0.1, 0.2], responses=["x", "y"]), **how)
    assert (await put(baselines, Entry("p", [0.1, 0.2 + 1e-9], responses=["x", "y"]), **how)).unchanged == 1
    with pytest.raises(IdempotencyConflict):
        await put(baselines, Entry("p", [0.1, 0.2], responses=["x", "z"]), **how)
    assert await rewards_of(baselines) == [0.1, 0.2]
