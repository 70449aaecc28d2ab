"""The store behind the kept scores: what survives, and what a dead, slow or damaged one does."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reward_service.engine import score_store
from reward_service.engine.score_records import Kept, pack, score_key, unpack
from reward_service.stores import MemoryStore, SqliteStore, Values
from tests.engine.conftest import Build
from tests.engine.keeping import MODEL, OTHER, Clock, Hanging, again, cache, kept, scored, tokens
from tests.engine.serving import HELLO, serving


async def test_the_store_is_told_when_a_score_expires() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    scores = cache(store, ttl_s=60)
    scores.put(MODEL, tokens(1), scored(1.5))
    await scores.close()
    assert await store.get_many([score_key(MODEL, tokens(1))]) != [None]
    clock.now += 61
    assert await store.get_many([score_key(MODEL, tokens(1))]) == [None]


async def test_scores_survive_a_restart_in_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("READ_LIMIT_S", "WRITE_LIMIT_S", "CLOSE_LIMIT_S"):
        monkeypatch.setattr(score_store, limit, 60.0)
    many = [tokens(n, n + 1) for n in range(1200)]
    store = SqliteStore(tmp_path / "store.db")
    before = cache(store, entries=10)
    for n, one in enumerate(many):
        before.put(MODEL, one, scored(n / 7, -n))
    await before.close()
    await store.close()
    reopened = SqliteStore(tmp_path / "store.db")
    assert await kept(cache(reopened), *many) == [[n / 7, -n] for n in range(1200)]
    assert await kept(cache(reopened), many[0], fingerprint=OTHER) == [None]
    await reopened.close()


async def test_one_round_trip_asks_for_each_missing_score_once() -> None:
    asked: list[Sequence[str]] = []

    class Counting(MemoryStore):
        async def get_many(self, keys: Sequence[str]) -> Values:
            asked.append(keys)
            return await super().get_many(keys)

    scores = cache(Counting())
    scores.put(MODEL, tokens(9), scored(9))
    assert await kept(scores, tokens(1), tokens(9), tokens(2), tokens(1)) == [None, [9.0], None, None]
    assert [len(keys) for keys in asked] == [2]
    await scores.close()


async def test_a_dead_store_neither_fails_nor_stops_the_cache(
    folder: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_store, "QUIET_S", 600.0)
    dead = SqliteStore(tmp_path / "store.db")
    await dead.close()
    scores = cache(dead)
    async with serving(folder("bos"), scores=scores) as engine:
        assert not (await again(engine, HELLO)).cached
        assert (await again(engine, HELLO)).cached  # out of memory
    await scores.close()
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "is closed" in caplog.text


async def test_a_hanging_store_costs_one_short_wait_and_is_then_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(score_store, "READ_LIMIT_S", 0.05)
    monkeypatch.setattr(score_store, "QUIET_S", 600.0)
    store = Hanging()
    scores = cache(store)
    async with asyncio.timeout(60):
        for n in range(10):
            assert await kept(scores, tokens(n)) == [None]
    assert store.reads == 1
    assert "no answer within 0.05 s" in caplog.text


async def test_the_store_is_asked_again_after_the_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_store, "READ_LIMIT_S", 0.02)
    monkeypatch.setattr(score_store, "QUIET_S", 0.02)
    store = Hanging()
    await store.update(
        [score_key(MODEL, tokens(1))], lambda _: [pack(score_key(MODEL, tokens(1)), Kept(np.ones(1), time.time()))]
    )
    scores = cache(store)
    assert await kept(scores, tokens(1)) == [None]
    store.answers.set()
    await asyncio.sleep(0.03)
    assert await kept(scores, tokens(1)) == [[1.0]]


async def test_while_a_store_is_tried_again_one_look_up_waits_and_the_others_do_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(score_store, "READ_LIMIT_S", 0.05)
    monkeypatch.setattr(score_store, "QUIET_S", 0.05)
    store = Hanging()
    scores = cache(store)
    assert await kept(scores, tokens(1)) == [None]
    await asyncio.sleep(0.1)
    assert await asyncio.gather(*(kept(scores, tokens(n)) for n in range(10))) == [[None]] * 10
    assert store.reads == 2


async def test_hanging_writes_delay_nobody_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_store, "MOST_WAITING", 5)
    monkeypatch.setattr(score_store, "WRITTEN_AT_ONCE", 5)
    store = Hanging()
    scores = cache(store)
    for n in range(20):
        scores.put(MODEL, tokens(n), scored(n))
    assert await kept(scores, tokens(19)) == [[19.0]]
    store.answers.set()
    await scores.close()
    written = await store.get_many([score_key(MODEL, tokens(n)) for n in range(20)])
    assert len(written) - written.count(None) == 5


async def test_closing_does_not_wait_for_a_hanging_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_store, "WRITE_LIMIT_S", 600.0)
    monkeypatch.setattr(score_store, "CLOSE_LIMIT_S", 0.05)
    scores = cache(Hanging())
    scores.put(MODEL, tokens(1), scored(1))
    async with asyncio.timeout(60):
        await scores.close()


async def test_a_damaged_or_foreign_record_counts_as_missing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    first = cache(store)
    for n in range(3):
        first.put(MODEL, tokens(n), scored(n))
    await first.close()
    keys = [score_key(MODEL, tokens(n)) for n in range(3)]
    good = await store.get_many(keys)
    await store.update(keys, lambda values: [values[1], b"other", values[2]])  # under another's key; of another program
    second = cache(store)
    assert await kept(second, *[tokens(n) for n in range(3)]) == [None, None, [2.0]]
    assert "2 kept scores are damaged" in caplog.text
    second.put(MODEL, tokens(0), scored(0))
    await second.close()
    (mended,) = await store.get_many(keys[:1])
    assert mended is not None
    assert good[0] is not None
    assert unpack(keys[0], mended) is not None
