"""Plans hold every item, each behind its own beginning, and compute what is shared once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reward_service.engine.packed.plan import Plan, encoder_plan, packed_plan, shared_plan
from reward_service.engine.rendering import Rendered
from tests.engine.packed.packs import item

rows = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=50), min_size=1, max_size=12)


def seen(plan: Plan, place: int) -> list[int]:
    """The tokens that an item's pooled token sees, itself last."""
    blocks = plan.pooled_blocks
    spans = [plan.spans[i] for i in blocks.read[blocks.offsets[place] : blocks.offsets[place + 1]]]
    tokens = np.concatenate([plan.ids[s.start : s.start + s.length] for s in spans])
    return [int(one) for one in tokens[: blocks.first[place] + 1]]


@given(rows)
def test_each_item_is_behind_its_own_beginning(given_rows: list[list[int]]) -> None:
    batch = [item(row) for row in given_rows]
    for plan in (shared_plan(batch), packed_plan(batch)):
        for place, row in enumerate(given_rows):
            assert seen(plan, place) == row
            assert plan.positions[plan.pooled[place]] == len(row) - 1
            assert plan.ids[plan.pooled[place]] == row[-1]


@given(rows)
def test_the_blocks_of_a_plan_are_its_tokens_each_once(given_rows: list[list[int]]) -> None:
    for plan in (shared_plan([item(row) for row in given_rows]), encoder_plan([item(row) for row in given_rows])):
        covered = np.zeros(plan.tokens, dtype=int)
        for row, count in zip(plan.blocks.row, plan.blocks.rows, strict=True):
            covered[row : row + count] += 1
        assert (covered == 1).all()
        for i, span in enumerate(plan.spans):
            chain = plan.blocks.read[plan.blocks.offsets[i] : plan.blocks.offsets[i + 1]]
            assert chain[-1] == i
            assert sum(plan.spans[j].length for j in chain[:-1]) == span.position == plan.blocks.first[i]


def test_a_beginning_that_items_have_in_common_is_computed_once() -> None:
    system, prompts = list(range(100, 130)), [[1] * 40, [2] * 40]
    batch = [item([*system, *prompt, 10 + draw, *([20 + draw] * 9)]) for prompt in prompts for draw in range(4)]
    assert shared_plan(batch).tokens == 30 + 2 * 40 + 8 * 10
    assert packed_plan(batch).tokens == sum(one.tokens for one in batch)


def test_equal_items_are_computed_once_and_short_beginnings_are_not_shared() -> None:
    assert shared_plan([item([1, 2, 3])] * 5).tokens == 3
    assert shared_plan([item([1, 2, 3, 4]), item([1, 2, 3, 5])]).tokens == 8


def test_an_item_may_be_the_beginning_of_another() -> None:
    long = list(range(1, 60))
    plan = shared_plan([item(long), item(long[:30]), item(long[:50])])
    assert plan.tokens == 59
    assert [int(plan.ids[at]) for at in plan.pooled] == [59, 30, 50]


def test_tokens_behind_the_pooled_one_are_left_out() -> None:
    padded = Rendered(np.array([5, 6, 7, 0, 0], dtype=np.int32), 2, None)
    assert shared_plan([padded]).ids.tolist() == [5, 6, 7]
    assert encoder_plan([padded]).ids.tolist() == [5, 6, 7, 0, 0]
