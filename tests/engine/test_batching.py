"""Which work makes a batch, in each layout: properties of the pure functions."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.engine.batching import borne, choose, computed_tokens
from reward_service.engine.engine import Priority
from reward_service.engine.forward import Layout
from reward_service.engine.prefixes import SHARE_FROM, Overlaps, common, order, shared, with_previous
from reward_service.engine.rendering import Rendered
from reward_service.engine.waiting import Work

Row = list[int]


def work(ids: Sequence[int], number: int = 0, priority: Priority = Priority.ROLLOUT) -> Work:
    return Work(Rendered(np.array(ids, dtype=np.int32), len(ids) - 1, None), priority, 0, number)


def group(prompt: int, tokens: int, *responses: int) -> list[Row]:
    """Rows with a prompt of so many tokens in common, and responses of the lengths given."""
    return [[prompt] * tokens + [1000 + number] * length for number, length in enumerate(responses)]


def window(*rows: Row) -> list[Work]:
    return [work(row, number) for number, row in enumerate(rows)]


def numbers(batch: Sequence[Work]) -> list[int]:
    return sorted(one.order for one in batch)


@st.composite
def trees(draw: st.DrawFn) -> list[Row]:
    """Rows that branch off earlier rows at any place, so that prefixes of all lengths occur."""
    rows: list[Row] = [[0]]
    for _ in range(draw(st.integers(0, 14))):
        parent = draw(st.sampled_from(rows))
        kept = draw(st.integers(0, len(parent)))
        tail = draw(st.lists(st.integers(0, 2), max_size=3))
        rows.append(parent[:kept] + tail * draw(st.integers(1, 20)) + [draw(st.integers(0, 300))])
    return rows


def prefix(a: Row, b: Row) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def distinct(rows: Sequence[Row]) -> int:
    """Tokens of the rows when each shares the longest prefix that is long enough with a row before it."""
    total = 0
    for number, row in enumerate(rows):
        best = max((prefix(row, other) for other in rows[:number]), default=0)
        total += len(row) - (best if best >= SHARE_FROM else 0)
    return total


@given(trees())
def test_rows_are_ordered_as_their_ids_and_overlap_as_counted_token_by_token(rows: list[Row]) -> None:
    arrays = [np.array(row, dtype=np.int32) for row in rows]
    assert [rows[index] for index in order(arrays)] == sorted(rows)
    ordered = [arrays[index] for index in order(arrays)]
    overlaps = Overlaps(ordered)
    assert with_previous(ordered) == [0, *(shared(a, b) for a, b in pairwise(ordered))]
    for first, a in enumerate(ordered):
        for second, b in enumerate(ordered[first + 1 :], first + 1):
            length = prefix(a.tolist(), b.tolist())
            assert common(a, b) == length
            assert overlaps.between(first, second) == (length if length >= SHARE_FROM else 0)


def test_large_ids_sort_as_numbers() -> None:
    rows = [np.array(row, dtype=np.int32) for row in ([256], [255], [70_000], [1], [2**31 - 1])]
    assert order(rows) == [3, 1, 0, 2, 4]


@given(trees())
def test_the_items_of_a_batch_bear_its_distinct_tokens(rows: list[Row]) -> None:
    works = window(*rows)
    assert sum(borne(Layout.SHARED, works)) == computed_tokens(Layout.SHARED, works) == distinct(rows)
    assert all(0 <= tokens <= len(row) for tokens, row in zip(borne(Layout.SHARED, works), rows, strict=True))
    assert computed_tokens(Layout.PACKED, works) == sum(map(len, rows))
    assert computed_tokens(Layout.PADDED, works) == len(rows) * max(map(len, rows))


@given(trees(), st.sampled_from(Layout), st.integers(4, 200), st.integers(0, 2**15 - 1))
def test_a_batch_holds_the_first_once_and_keeps_the_limit(
    rows: list[Row], layout: Layout, limit: int, jobs: int
) -> None:
    works = [work(row, n, Priority((jobs >> n) % 2)) for n, row in enumerate(rows)]
    batch = choose(layout, works, limit)
    head = works[0]
    assert head in batch
    assert len(set(numbers(batch))) == len(batch)
    assert set(numbers(batch)) <= set(range(len(rows)))
    if head.tokens <= limit:
        assert computed_tokens(layout, batch) <= limit
    elif layout is Layout.SHARED:
        assert computed_tokens(layout, batch) <= limit + head.tokens
    else:
        assert batch == [head]


@given(trees(), st.sampled_from(Layout), st.integers(4, 200))
def test_whatever_waits_is_computed_once_batch_by_batch(rows: list[Row], layout: Layout, limit: int) -> None:
    waiting, computed = window(*rows), list[Work]()
    while waiting:
        batch = choose(layout, waiting, limit)
        computed += batch
        waiting = [one for one in waiting if one not in batch]
    assert numbers(computed) == list(range(len(rows)))


@given(st.lists(st.tuples(st.integers(16, 60), st.integers(1, 8), st.integers(1, 20)), min_size=1, max_size=8))
def test_groups_stay_whole_where_each_fits(shapes: list[tuple[int, int, int]]) -> None:
    groups = [group(number + 1, prompt, *[response] * n) for number, (prompt, n, response) in enumerate(shapes)]
    works = window(*(row for one in groups for row in one))
    limit = 4 * max(distinct(one) for one in groups)  # then a batch is three quarters full without cutting any
    batch = numbers(choose(Layout.SHARED, works, limit))
    first = 0
    for one in groups:
        members = set(range(first, first + len(one)))
        assert members <= set(batch) or not members & set(batch)
        first += len(one)


def test_a_group_joins_its_head_from_behind_and_a_shared_system_prompt_makes_no_group() -> None:
    system, family = [7] * 16, group(1, 200, *[50] * 10)
    rows = [system + row for row in [*family[:5], *group(2, 140, 20, 20), *family[5:]]]
    works = window(*([*row, 2000 + n] for n, row in enumerate(rows)))
    members = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    limit = computed_tokens(Layout.SHARED, [works[n] for n in members]) + works[5].tokens
    assert numbers(choose(Layout.SHARED, works, limit)) == members
    assert numbers(choose(Layout.SHARED, works, limit + 6)) == list(range(12))


def test_of_a_group_that_does_not_fit_the_closest_relatives_go_with_the_head() -> None:
    rows = group(1, 40, 30, 30, 30, 30)
    near = [1] * 40 + [1000] * 20 + [9] * 10
    assert numbers(choose(Layout.SHARED, window(*rows, near), 105)) == [0, 4]


def test_a_group_is_cut_rather_than_a_batch_left_half_empty() -> None:
    works = window(*group(1, 40, 10, 10), *group(2, 40, *[20] * 4))
    assert numbers(choose(Layout.SHARED, works, 130)) == [0, 1, 2]


def test_a_long_item_goes_alone_and_does_not_hold_up_short_ones() -> None:
    long = [5] * 60
    for layout in (Layout.PACKED, Layout.SHARED):
        assert numbers(choose(layout, window([1] * 10, long, [2] * 10, [3] * 10), 100)) == [0, 2, 3]
        assert numbers(choose(layout, window(long, [1] * 10, [2] * 10), 100)) == [0]


def test_responses_to_a_prompt_longer_than_a_batch_are_computed_with_it_at_once() -> None:
    works = window(*group(5, 500, *[10] * 8), [1] * 10)
    batch = choose(Layout.SHARED, works, 100)
    assert numbers(batch) == list(range(8))
    assert computed_tokens(Layout.SHARED, batch) == 500 + 8 * 10


def test_rollouts_fill_a_batch_before_jobs() -> None:
    for layout in Layout:
        works = [work([n + 1] * 10, n, Priority(n % 2)) for n in range(12)]
        assert numbers(choose(layout, works, 70)) == [0, 1, 2, 4, 6, 8, 10]


def least_s(do: Callable[[], object]) -> float:
    """CPU time of the quickest of some tries: in the others garbage of other tests may have been collected."""

    def tried_s() -> float:
        started = time.thread_time()
        do()
        return time.thread_time() - started

    return min(tried_s() for _ in range(5))


@pytest.mark.parametrize("groups", [(256, 8), (2048, 1)])
def test_the_largest_window_is_chosen_from_in_milliseconds(groups: tuple[int, int]) -> None:
    chance = np.random.default_rng(0)
    rows = [
        np.concatenate([prompt, chance.integers(0, 8000, 34)]).tolist()
        for prompt in chance.integers(0, 8000, (groups[0], 30))
        for _ in range(groups[1])
    ]
    works = window(*rows)
    sorting_s = least_s(lambda: sorted(work.rendered.ids.tolist() for work in works))  # 4 ms of a fast machine
    assert least_s(lambda: choose(Layout.SHARED, works, 16_384)) < 12 * sorting_s
