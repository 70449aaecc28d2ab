"""Rows: merging has the laws of a set, entries are checked, bytes come back as they were."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.baselines import MAX_ROWS, Entry, PolicyState, Rows, Snapshot, StoredRows
from reward_service.baselines.entries import sent_by_prompt
from reward_service.baselines.records import (
    Write,
    decode_outputs,
    decode_rows,
    decode_snapshot,
    decode_state,
    encode_outputs,
    encode_rows,
    encode_snapshot,
    encode_state,
)
from reward_service.baselines.rows import merge
from reward_service.errors import InvalidRequest, StoreUnavailable

WRITE = Write(b"01234567", b"89abcdef", b"ghijklmn")

finite = st.floats(allow_nan=False, allow_infinity=False)


def rows_by_prompt(entries: list[Entry], labels: int, draw_source: str) -> dict[str, Rows]:
    return {prompt: sent.rows for prompt, sent in sent_by_prompt(entries, labels, draw_source).items()}


def rows_of(indexes: set[int], labels: int = 1) -> Rows:
    """Rows whose values are a function of their draw ids."""
    ids = sorted(indexes)
    rewards = [[index + label / 8 for label in range(labels)] for index in ids]
    entry = Entry("p", rewards, tokens=ids, draw_ids=[f"k:{index}" for index in ids])
    return rows_by_prompt([entry], labels, "")["p"]


samples = st.sets(st.integers(0, 600), min_size=1, max_size=400).map(rows_of)


@given(samples, samples)
def test_merging_is_commutative(a: Rows, b: Rows) -> None:
    assert merge(a, b) == merge(b, a)


@given(samples, samples, samples)
def test_merging_is_associative(a: Rows, b: Rows, c: Rows) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(samples, samples)
def test_merging_is_idempotent_also_after_rows_were_dropped(a: Rows, b: Rows) -> None:
    assert merge(a, a) == a
    assert merge(merge(a, b), a) == merge(a, b)


def test_at_most_256_rows_stay_and_they_are_a_fair_sample() -> None:
    rows = rows_of(set(range(10_000)))
    assert len(rows) == MAX_ROWS
    assert abs(rows.outputs.mean() - 5000) < 4 * (10_000 / 12**0.5) / 16
    assert rows.outputs[:, 0].astype(int).tolist() == rows.tokens.tolist()


def test_the_first_row_of_a_draw_stays() -> None:
    first, second = (rows_by_prompt([Entry("p", [value])], 1, "key")["p"] for value in (1.0, 2.0))
    assert merge(first, second).outputs.tolist() == [[1.0]]


def test_equal_rewards_are_real_draws() -> None:
    assert len(rows_by_prompt([Entry("p", [0.5] * 64)], 1, "key")["p"]) == 64


def test_rows_of_other_outputs_do_not_merge() -> None:
    with pytest.raises(InvalidRequest, match="1 and 2 outputs"):
        merge(rows_of({1}), rows_of({2}, labels=2))


def test_entries_of_one_prompt_are_joined_and_their_draws_counted_on() -> None:
    split = rows_by_prompt([Entry("p", [1, 2]), Entry("q", [9]), Entry("p", [3])], 1, "key")
    assert split["p"] == rows_by_prompt([Entry("p", [1, 2, 3])], 1, "key")["p"]
    assert len(split["q"]) == 1


def test_explicit_draw_ids_name_the_same_draws_as_key_and_index() -> None:
    explicit = Entry("p", [2, 1], draw_ids=["key:1", "key:0"])
    assert rows_by_prompt([explicit], 1, "other") == rows_by_prompt([Entry("p", [1, 2])], 1, "key")


def test_rows_cannot_be_written_to_since_caches_share_them() -> None:
    rows = rows_of({1, 2})
    for column in (*rows.columns, *decode_rows("k", encode_rows(StoredRows(rows, 1))).rows.columns):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


@pytest.mark.parametrize(
    ("entry", "labels", "sentence"),
    [
        (Entry("p", []), 1, "rewards is empty"),
        (Entry("p", []), 2, "rewards is empty"),
        (Entry("p", [1.0, float("nan")]), 1, "finite"),
        (Entry("p", [float("inf")]), 1, "finite"),
        (Entry("p", [1.0, 2.0]), 2, "each must be a list of 2 numbers, one per label"),
        (Entry("p", [[1.0, 2.0]]), 1, "the model has 1 output(s), so each must be a number"),
        (Entry("p", [[1.0, 2.0], [3.0]]), 2, "unequal length"),
        (Entry("p", [1.0], std=[0.1, 0.2]), 1, "std has 2 numbers for 1 rewards"),
        (Entry("p", [1.0], std=[-0.1]), 1, "not negative"),
        (Entry("p", [1.0], tokens=[1, 2]), 1, "tokens has 2 numbers for 1 rewards"),
        (Entry("p", [1.0], tokens=[2**40]), 1, "not a list of numbers"),
        (Entry("p", [1.0], characters=[-7]), 1, "a length is not negative"),
        (Entry("p", [1.0], draw_ids=[]), 1, "0 draw_ids for 1 rewards"),
        (Entry("p", [1.0, 2.0], draw_ids=["a", "a"]), 1, "a draw id stands there twice"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused_by_position_and_reason(entry: Entry, labels: int, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rows_by_prompt([entry], labels, "key")
    assert caught.value.detail.startswith("entries[0]: ")
    assert sentence in caught.value.detail


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    labels, count = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    per_label = st.lists(finite, min_size=labels, max_size=labels)
    std = st.lists(st.lists(st.just(np.nan) | st.floats(0, 1e9), min_size=labels, max_size=labels), min_size=count)
    lengths = st.lists(st.integers(-1, 2**31 - 1), min_size=count, max_size=count)
    entry = Entry(
        "p",
        draw(st.lists(per_label, min_size=count, max_size=count)),
        std=draw(st.none() | std.map(lambda lists: lists[:count])),
        tokens=draw(st.none() | lengths),
        characters=draw(st.none() | lengths),
    )
    return rows_by_prompt([entry], labels, draw(st.text()))["p"]


eight_bytes = st.binary(min_size=8, max_size=8)
writes = st.lists(st.builds(Write, eight_bytes, eight_bytes, eight_bytes), max_size=32)


@given(any_rows(), st.integers(0, 2**60), writes)
def test_rows_come_back_from_bytes_as_they_were(rows: Rows, revision: int, writes: list[Write]) -> None:
    stored = StoredRows(rows, revision, tuple(writes))
    assert decode_rows("k", encode_rows(stored)) == stored
    snapshot = Snapshot(rows, 123, revision)
    assert decode_snapshot("k", encode_snapshot(snapshot)) == snapshot


def test_states_and_outputs_come_back_from_bytes_as_they_were() -> None:
    state = PolicyState("révision", True, 7, 3)
    assert decode_state("k", encode_state(state)) == state
    assert decode_state("k", None) == PolicyState(None, False, 0, 0)
    assert decode_outputs("k", encode_outputs(np.array([1.5, -0.0, 1e300]))).tolist() == [1.5, -0.0, 1e300]


def test_256_rows_take_about_8_kb_and_64_about_2() -> None:
    assert len(encode_rows(StoredRows(rows_of(set(range(256))), 1))) == 27 + 256 * 32
    assert len(encode_rows(StoredRows(rows_of(set(range(64)), labels=3), 1, (WRITE,)))) == 27 + 24 + 64 * 48


def test_damaged_bytes_are_never_read_as_rows() -> None:
    data = bytearray(encode_rows(StoredRows(rows_of(set(range(9))), 1, (WRITE,))))
    for position in random.Random(0).sample(range(len(data)), 100):
        damaged = bytes([*data[:position], data[position] ^ 0x40, *data[position + 1 :]])
        with pytest.raises(StoreUnavailable, match="rows/x"):
            decode_rows("rows/x", damaged)
    for length in (0, 5, 9, 10, len(data) - 1):
        with pytest.raises(StoreUnavailable, match="damaged"):
            decode_rows("rows/x", bytes(data[:length]))


def test_a_newer_format_and_another_kind_are_named() -> None:
    data = bytearray(encode_state(PolicyState()))
    with pytest.raises(StoreUnavailable, match="its kind is b'RPOL', not b'RROW'"):
        decode_rows("k", bytes(data))
    data[4] = 3
    with pytest.raises(StoreUnavailable, match="has format 3; this release reads format 2"):
        decode_state("k", bytes(data))
