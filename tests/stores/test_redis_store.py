"""What only the Redis store does: commands and round trips, other processes, cancellation, what a server knows."""

import asyncio
import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reward_service.stores import Store, open_store
from tests.redis_server import RedisServer
from tests.stores.clocks import PATIENT_S

COUNT_TO_50 = """
import asyncio, sys
from reward_service.stores import open_store

async def main():
    store = open_store(sys.argv[1], timeout_s=float(sys.argv[2]))
    for _ in range(50):
        await store.update(["count"], lambda values: [str(int(values[0] or b"0") + 1).encode()])
    await store.close()

asyncio.run(main())
"""


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Store]:
    store = open_store(redis_server.url, timeout_s=PATIENT_S)
    await store.ping()
    redis_server.command("CONFIG", "RESETSTAT")
    yield store
    await store.close()


async def test_a_look_up_of_many_keys_is_one_command(store: Store, redis_server: RedisServer) -> None:
    keys = [f"rows/{i}" for i in range(256)]
    assert await store.get_many(keys) == [None] * 256
    assert redis_server.calls() == {"mget": 1, "config|resetstat": 1}


async def test_an_update_reads_and_writes_once_each_and_writes_nothing_when_nothing_changes(
    store: Store, redis_server: RedisServer
) -> None:
    await store.put_many({f"k/{i}": b"1" for i in range(100)})
    redis_server.command("CONFIG", "RESETSTAT")
    await store.update([f"k/{i}" for i in range(100)], lambda values: [b"2", *values[1:]])
    calls = redis_server.calls()
    assert (calls["mget"], calls["evalsha"], calls["set"], calls["zadd"]) == (1, 1, 1, 1)
    await store.update(["k/0"], lambda values: values)
    assert redis_server.calls()["evalsha"] == 1


async def test_a_server_that_forgot_the_scripts_is_taught_them_again(store: Store, redis_server: RedisServer) -> None:
    for script in ("put", "update", "add"):
        redis_server.command("SCRIPT", "FLUSH")
        if script == "put":
            await store.put_many({"a": b"1"})
        elif script == "update":
            await store.update(["a"], lambda values: [b"2"])
        else:
            assert await store.add_many({"a": b"3"}, ttl_s=1) == [False]
    assert await store.get_many(["a"]) == [b"2"]


def test_processes_that_update_one_key_at_once_lose_nothing(redis_server: RedisServer) -> None:
    line = [sys.executable, "-c", COUNT_TO_50, redis_server.url, str(PATIENT_S)]
    processes = [subprocess.Popen(line) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert redis_server.command("GET", "{rw}count") == b"150"


async def test_a_write_of_another_process_between_read_and_write_is_not_lost(
    store: Store, redis_server: RedisServer
) -> None:
    await store.put_many({"a": b"1", "b": b"1"})
    others = iter([lambda: redis_server.command("SET", "{rw}b", "9"), lambda: redis_server.command("DEL", "{rw}a")])

    def change(values: list[bytes | None]) -> list[bytes | None]:
        next(others, lambda: None)()
        return [b"mine", *values[1:]]

    assert await store.update(["a", "b"], change) == [b"mine", b"9"]
    assert await store.get_many(["a", "b"]) == [b"mine", b"9"]


async def test_cancelled_calls_leave_no_answer_for_the_next_call(store: Store) -> None:
    await store.put_many({f"k/{i}": str(i).encode() * 1000 for i in range(50)})
    for step in range(60):
        tasks = [asyncio.create_task(store.get_many([f"k/{i}"])) for i in range(50)]
        for _ in range(step // 2):
            await asyncio.sleep(0)
        for task in tasks[step % 3 :: 2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for i, values in enumerate(done):
            assert isinstance(values, asyncio.CancelledError) or values == [str(i).encode() * 1000]
    assert await store.get_many(["k/7"]) == [b"7" * 1000]


async def test_many_calls_at_once_use_few_connections(store: Store, redis_server: RedisServer) -> None:
    await asyncio.gather(*(store.get_many([f"k/{i}"]) for i in range(500)))
    clients: dict[str, int] = redis_server.command("INFO", "clients")
    assert clients["connected_clients"] <= 16 + 1


async def test_what_a_policy_takes_lies_in_the_server_as_the_docs_say(store: Store, redis_server: RedisServer) -> None:
    await store.put_many({"rows/b": b"1", "rows/a": b"1"})
    await store.put_many({"score/c": b"1"}, ttl_s=100_000)
    assert sorted(redis_server.command("KEYS", "*")) == [b"{rw}", b"{rw}rows/a", b"{rw}rows/b", b"{rw}score/c"]
    assert redis_server.command("ZRANGE", "{rw}", 0, -1) == [b"{rw}rows/a", b"{rw}rows/b"]
    assert 99_900_000 < redis_server.command("PTTL", "{rw}score/c") <= 100_000_000
    await store.update(["rows/a", "rows/b"], lambda values: [None, None])
    assert redis_server.command("KEYS", "*") == [b"{rw}score/c"]


async def test_an_item_really_expires(store: Store) -> None:
    await store.put_many({"a": b"1"}, ttl_s=0.05)
    await store.add_many({"b": b"1"}, ttl_s=0.0001)
    async with asyncio.timeout(20):
        while await store.get_many(["a", "b"]) != [None, None]:
            await asyncio.sleep(0.02)


async def test_a_time_to_live_longer_than_the_clock_of_redis_is_as_good_as_for_ever(store: Store) -> None:
    await store.put_many({"a": b"1"}, ttl_s=1e300)
    assert await store.get_many(["a"]) == [b"1"]


async def test_a_listing_skips_what_another_program_deleted(store: Store, redis_server: RedisServer) -> None:
    await store.put_many({f"k/{i}": b"" for i in range(10)})
    redis_server.command("DEL", *(f"{{rw}}k/{i}" for i in range(1, 9)))
    assert [key for key, _ in await store.scan("k/", limit=2)] == ["k/0", "k/9"]


async def test_a_server_that_drops_baselines_when_it_is_full_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "reward_service")
    with RedisServer(tmp_path, ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]) as server:
        store = open_store(server.url, timeout_s=PATIENT_S)
        for _ in range(2):
            await store.ping()
        await store.close()
    assert caplog.text.count("maxmemory-policy allkeys-lru, which drops baselines") == 1


async def test_updates_that_share_no_key_do_not_wait_for_each_other(store: Store) -> None:
    order = itertools.count()
    changing, go_on = threading.Event(), threading.Event()

    def slow(values: list[bytes | None]) -> list[bytes | None]:
        changing.set()
        go_on.wait(PATIENT_S)
        return [b"%d" % next(order)]

    def quick(values: list[bytes | None]) -> list[bytes | None]:
        return [b"%d" % next(order)]

    first = asyncio.create_task(store.update(["slow"], slow))
    assert await asyncio.to_thread(changing.wait, PATIENT_S)
    assert await store.update(["quick"], quick) == [b"0"]
    go_on.set()
    assert await first == [b"1"]
