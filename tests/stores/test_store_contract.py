"""What every store does: the contract of `Store`."""

import asyncio
import re

import pytest

from reward_service.errors import StoreUnavailable
from reward_service.stores import Store, Values
from tests.stores.clocks import Clock

BINARY = bytes(range(256)) * 3


def increment(values: Values) -> Values:
    return [str(int(value or b"0") + 1).encode() for value in values]


async def test_a_missing_key_is_none(store: Store) -> None:
    assert await store.get_many(["a", "b"]) == [None, None]


async def test_no_keys_are_no_values(store: Store) -> None:
    assert await store.get_many([]) == []
    assert await store.update([], lambda values: values) == []
    await store.put_many({})


async def test_values_come_in_the_order_of_the_keys_also_when_a_key_is_asked_twice(store: Store) -> None:
    await store.put_many({"a": b"1", "b": BINARY, "empty": b""})
    assert await store.get_many(["b", "x", "a", "b", "empty"]) == [BINARY, None, b"1", BINARY, b""]


async def test_a_put_replaces(store: Store) -> None:
    await store.put_many({"a": b"1"})
    await store.put_many({"a": b"2"})
    assert await store.get_many(["a"]) == [b"2"]


async def test_forty_thousand_keys_go_in_one_call(store: Store) -> None:
    items = {f"key/{i}": str(i).encode() for i in range(40_000)}
    await store.put_many(items)
    assert await store.get_many(list(items)) == list(items.values())
    assert await store.update(list(items), lambda values: [None] * len(values)) == [None] * 40_000
    assert await store.scan("key/") == []


async def test_an_item_expires(store: Store, clock: Clock) -> None:
    await store.put_many({"short": b"1"}, ttl_s=1000)
    await store.put_many({"long": b"2"}, ttl_s=2000)
    await clock.advance(900)
    assert await store.get_many(["short", "long"]) == [b"1", b"2"]
    await clock.advance(100)
    assert await store.get_many(["short", "long"]) == [None, b"2"]
    assert await store.update(["short"], increment) == [b"1"]
    await clock.advance(1000)
    assert await store.get_many(["short", "long"]) == [b"1", None]


async def test_of_those_that_add_a_key_at_once_one_is_told_that_it_wrote(store: Store, clock: Clock) -> None:
    added = await asyncio.gather(*(store.add_many({"a": b"%d" % i, f"own/{i}": b""}, ttl_s=900) for i in range(20)))
    assert [own for _, own in added] == [True] * 20
    assert [first for first, _ in added].count(True) == 1
    winner = [first for first, _ in added].index(True)
    assert await store.get_many(["a"]) == [b"%d" % winner]
    await clock.advance(900)
    assert await store.get_many(["a", "own/3"]) == [None, None]
    assert await store.add_many({"a": b"later"}, ttl_s=900) == [True]


async def test_adding_leaves_what_is_there_with_its_expiry(store: Store, clock: Clock) -> None:
    await store.put_many({"lasting": b"1", "c": b""})
    await store.put_many({"short": b"1"}, ttl_s=900)
    assert await store.add_many({"lasting": b"2", "short": b"2", "new": b"2"}, ttl_s=2000) == [False, False, True]
    assert await store.add_many({}, ttl_s=1) == []
    await clock.advance(900)
    assert await store.get_many(["lasting", "short", "new"]) == [b"1", None, b"2"]


async def test_a_put_without_ttl_ends_an_earlier_expiry(store: Store, clock: Clock) -> None:
    await store.put_many({"a": b"1"}, ttl_s=10)
    await store.put_many({"a": b"1"})
    await clock.advance(100)
    await store.put_many({"b": b"2"})
    assert await store.get_many(["a"]) == [b"1"]


async def test_an_update_that_leaves_a_value_keeps_its_expiry_and_a_new_value_does_not_expire(
    store: Store, clock: Clock
) -> None:
    await store.put_many({"kept": b"1", "new": b"1"}, ttl_s=900)
    await store.update(["kept", "new"], lambda values: [values[0], b"2"])
    await clock.advance(900)
    assert await store.get_many(["kept", "new"]) == [None, b"2"]


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
async def test_a_ttl_that_is_not_positive_is_refused(store: Store, ttl_s: float) -> None:
    for attempt in (store.put_many({"a": b"1"}, ttl_s=ttl_s), store.add_many({"a": b"1"}, ttl_s=ttl_s)):
        with pytest.raises(ValueError, match="ttl_s must be positive"):
            await attempt


async def test_an_update_sees_replaces_creates_and_deletes(store: Store) -> None:
    await store.put_many({"a": b"1", "b": b"2"})
    seen: list[Values] = []

    def change(values: Values) -> Values:
        seen.append(list(values))
        return [b"3", None, b"new"]

    assert await store.update(["a", "b", "c"], change) == [b"3", None, b"new"]
    assert seen[-1] == [b"1", b"2", None]
    assert await store.get_many(["a", "b", "c"]) == [b"3", None, b"new"]


async def test_an_update_that_raises_changes_nothing_and_the_error_passes_on(store: Store) -> None:
    await store.put_many({"a": b"1"})

    def change(values: Values) -> Values:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await store.update(["a", "b"], change)
    assert await store.get_many(["a", "b"]) == [b"1", None]
    assert await store.update(["a"], increment) == [b"2"]


async def test_a_change_that_answers_too_few_values_changes_nothing(store: Store) -> None:
    await store.put_many({"a": b"1"})
    with pytest.raises(ValueError, match="1 values for 2 keys"):
        await store.update(["a", "b"], lambda values: [b"9"])
    assert await store.get_many(["a", "b"]) == [b"1", None]


async def test_concurrent_updates_lose_nothing(store: Store) -> None:
    await asyncio.gather(*(store.update(["a", f"own/{i}"], increment) for i in range(100)))
    assert await store.get_many(["a", "own/0", "own/99"]) == [b"100", b"1", b"1"]


async def test_a_cancelled_update_is_done_entirely_or_not_at_all(store: Store) -> None:
    tasks = [asyncio.create_task(store.update(["a", "b"], increment)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    a, b = await store.get_many(["a", "b"])
    assert a == b
    assert 10 <= int(a or b"0") <= 20


async def test_a_scan_gives_the_items_of_a_prefix_in_key_order(store: Store) -> None:
    await store.put_many({"a/2": b"2", "a/10": b"10", "ab": b"x", "a": b"x", "b/1": b"x", "a/~": b"z", "a_%": b"x"})
    assert await store.scan("a/") == [("a/10", b"10"), ("a/2", b"2"), ("a/~", b"z")]
    assert [key for key, _ in await store.scan("")] == ["a", "a/10", "a/2", "a/~", "a_%", "ab", "b/1"]


async def test_a_scan_does_not_list_what_expires(store: Store) -> None:
    await store.put_many({"a": b"1", "b": b"1", "c": b"1"})
    await store.put_many({"b": b"2", "d": b"2"}, ttl_s=100)
    await store.add_many({"e": b"3"}, ttl_s=100)
    assert [key for key, _ in await store.scan("")] == ["a", "c"]
    await store.update(["a", "b", "d"], lambda values: [None, values[1], b"4"])
    assert [key for key, _ in await store.scan("")] == ["c", "d"]
    await store.put_many({"b": b"5"})
    assert await store.scan("") == [("b", b"5"), ("c", b"1"), ("d", b"4")]


async def test_a_scan_goes_page_by_page(store: Store) -> None:
    await store.put_many({f"k/{i:04}": b"" for i in range(2500)})
    pages, after = [], ""
    while page := await store.scan("k/", after=after):
        pages.append(len(page))
        after = page[-1][0]
    assert pages == [1000, 1000, 500]
    assert [key for key, _ in await store.scan("k/", after="k/0003", limit=2)] == ["k/0004", "k/0005"]


@pytest.mark.parametrize("key", ["", "ü", "a\n", "a\0"])
async def test_a_key_that_is_not_printable_ascii_is_refused(store: Store, key: str) -> None:
    attempts = (
        store.get_many([key]),
        store.put_many({key: b""}),
        store.add_many({key: b""}, ttl_s=1),
        store.update([key], increment),
    )
    for attempt in attempts:
        with pytest.raises(ValueError, match="not a store key"):
            await attempt


async def test_a_key_given_twice_to_update_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="twice"):
        await store.update(["a", "a"], increment)


async def test_a_closed_store_is_unavailable_not_empty(store: Store) -> None:
    await store.put_many({"a": b"1"})
    await store.ping()
    await store.close()
    await store.close()
    attempts = (
        store.get_many(["a"]),
        store.put_many({"a": b""}),
        store.add_many({"a": b""}, ttl_s=1),
        store.update(["a"], increment),
        store.scan(""),
        store.ping(),
    )
    for attempt in attempts:
        with pytest.raises(StoreUnavailable, match=re.escape("is closed")):
            await attempt
