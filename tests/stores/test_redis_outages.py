"""A Redis that is gone, frozen, full, read-only or loading: said as it is, at once, and used again when it is back."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from reward_service.config.store_urls import store_address
from reward_service.errors import StoreUnavailable
from reward_service.stores import Store, open_store
from tests.ports import HeldPort
from tests.redis_server import DURABLE, RedisServer
from tests.stores.clocks import PATIENT_S

BACK_LIMIT_S = 60.0


async def failure(attempt: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await attempt
    return caught.value.detail


async def back(store: Store, key: str) -> list[bytes | None]:
    """The value of the key as soon as the store answers."""
    async with asyncio.timeout(BACK_LIMIT_S):
        while True:
            try:
                return await store.get_many([key])
            except StoreUnavailable:
                await asyncio.sleep(0.02)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Store]]:
    with RedisServer(tmp_path, DURABLE) as server:
        store = open_store(server.url, timeout_s=PATIENT_S)
        await store.put_many({"a": b"1"})
        yield server, store
        await store.close()


@pytest.fixture
async def hurried(opened: tuple[RedisServer, Store]) -> AsyncIterator[Store]:
    """Another store on the same server, which may take half a second for an answer."""
    server, _ = opened
    store = open_store(server.url, timeout_s=0.5)
    await back(store, "a")
    yield store
    await store.close()


async def test_a_server_that_is_not_there_is_named_with_the_reason() -> None:
    with HeldPort() as held:
        store = open_store(f"redis://:secret@127.0.0.1:{held.number}/3", timeout_s=PATIENT_S)
        detail = await failure(store.ping())
        await store.close()
    assert detail.startswith(f"the store redis://127.0.0.1:{held.number}/3 failed: ")
    assert "onnect" in detail
    assert "secret" not in detail


async def test_a_server_that_died_and_came_back_is_used_again_and_nothing_is_lost(
    opened: tuple[RedisServer, Store],
) -> None:
    server, store = opened
    server.kill()
    for attempt in (store.get_many(["a"]), store.put_many({"a": b"2"}), store.update(["a"], lambda _: [b"2"])):
        assert "failed" in await failure(attempt)
    server.start()
    assert await back(store, "a") == [b"1"]
    await store.put_many({"a": b"3"})
    assert await store.get_many(["a"]) == [b"3"]


async def test_a_restart_between_two_calls_costs_at_most_a_moment(opened: tuple[RedisServer, Store]) -> None:
    server, store = opened
    await asyncio.gather(*(store.get_many(["a"]) for _ in range(50)))
    server.kill()
    server.start()
    assert await back(store, "a") == [b"1"]
    assert await asyncio.gather(*(store.get_many(["a"]) for _ in range(50))) == [[b"1"]] * 50


async def test_while_it_is_down_calls_fail_at_once_and_few_of_them_reach_for_it(tmp_path: Path) -> None:
    reached = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached += 1
        writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    store = open_store(f"redis://127.0.0.1:{port}", timeout_s=0.5)
    started = time.monotonic()
    for _ in range(10):
        failures = await asyncio.gather(*(failure(store.get_many(["a"])) for _ in range(100)))
        assert len(set(failures)) <= 2
        await asyncio.sleep(0.02)
    assert reached <= 16 + 4 * (time.monotonic() - started + 2)
    listening.close()
    await store.close()


@pytest.mark.parametrize("ask", [lambda s: s.get_many(["a"]), lambda s: s.put_many({"b": b"1"}), lambda s: s.ping()])
async def test_a_frozen_server_is_given_up_after_the_time_allowed(
    opened: tuple[RedisServer, Store], hurried: Store, ask: Callable[[Store], Awaitable[object]]
) -> None:
    server, _ = opened
    server.pause()
    assert "no answer within 0.5 s" in await failure(ask(hurried))
    server.resume()
    assert await back(hurried, "a") == [b"1"]


async def test_a_process_that_had_no_processor_for_a_while_does_not_take_the_server_for_late(
    hurried: Store,
) -> None:
    asking = asyncio.create_task(hurried.get_many(["a"]))
    for _ in range(6):
        await asyncio.sleep(0)
    time.sleep(0.8)
    assert await asking == [b"1"]


async def test_what_arrives_late_is_never_the_answer_to_another_call(
    opened: tuple[RedisServer, Store], hurried: Store
) -> None:
    server, store = opened
    await store.put_many({f"k/{i}": str(i).encode() for i in range(32)})
    for _ in range(3):
        server.pause()
        await asyncio.gather(*(failure(hurried.get_many([f"k/{i}"])) for i in range(32)))
        server.resume()
        await back(hurried, "a")
        assert [await back(hurried, f"k/{i}") for i in range(32)] == [[str(i).encode()] for i in range(32)]


async def test_a_full_server_refuses_writes_entirely_and_still_reads(opened: tuple[RedisServer, Store]) -> None:
    server, store = opened
    server.command("CONFIG", "SET", "maxmemory", "1")
    for attempt in (
        store.put_many({"a": b"2", "b": b"2"}),
        store.update(["a", "b"], lambda _: [b"2", b"2"]),
        store.add_many({"b": b"2"}, ttl_s=5),
    ):
        assert "is full (maxmemory)" in await failure(attempt)
    assert await store.get_many(["a", "b"]) == [b"1", None]
    assert await store.update(["a"], lambda _: [None]) == [None]
    server.command("CONFIG", "SET", "maxmemory", "0")
    await store.put_many({"b": b"3"})
    assert await store.scan("") == [("b", b"3")]


async def test_a_full_server_can_be_emptied_by_an_update_that_also_writes_and_does_all_of_it(
    opened: tuple[RedisServer, Store],
) -> None:
    server, store = opened
    await store.put_many({"a": b"1", "b": b"1", "c": b"1", "d": b"1"})
    server.command("CONFIG", "SET", "maxmemory", "1")
    large = bytes(1_000_000)
    assert await store.update(["a", "b", "c", "d", "e"], lambda _: [b"2", None, large, None, b"2"])
    assert await store.scan("") == [("a", b"2"), ("c", large), ("e", b"2")]
    assert "is full (maxmemory)" in await failure(store.update(["a", "c"], lambda _: [b"3", b"3"]))
    assert await store.scan("") == [("a", b"2"), ("c", large), ("e", b"2")]


async def test_a_server_that_cannot_save_is_read_also_after_an_outage(tmp_path: Path) -> None:
    (folder := tmp_path / "lost").mkdir()
    with RedisServer(folder) as server:
        server.command("SET", "{rw}a", "1")
        store = open_store(server.url, timeout_s=0.5)
        await back(store, "a")
        shutil.rmtree(folder)
        server.command("CONFIG", "SET", "save", "3600 1")
        server.command("BGSAVE")
        async with asyncio.timeout(BACK_LIMIT_S):
            while server.command("INFO", "persistence")["rdb_last_bgsave_status"] == "ok":
                await asyncio.sleep(0.01)
        server.pause()
        assert "no answer" in await failure(store.get_many(["a"]))
        server.resume()
        assert await back(store, "a") == [b"1"]
        assert "MISCONF" in await failure(store.put_many({"a": b"2"}))
        assert await store.get_many(["a"]) == [b"1"]
        await store.close()


async def test_a_replica_that_takes_no_writes_says_so_and_is_used_when_it_is_promoted(
    opened: tuple[RedisServer, Store], tmp_path: Path
) -> None:
    server, _ = opened
    server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    (tmp_path / "replica").mkdir()
    with RedisServer(tmp_path / "replica", ["--replicaof", "127.0.0.1", str(server.port)]) as replica:
        behind = open_store(replica.url, timeout_s=PATIENT_S)
        async with asyncio.timeout(BACK_LIMIT_S):
            while await back(behind, "a") != [b"1"]:
                await asyncio.sleep(0.05)
        assert "is a read-only replica" in await failure(behind.put_many({"a": b"2"}))
        replica.command("REPLICAOF", "NO", "ONE")
        await behind.put_many({"a": b"2"})
        await behind.close()


async def test_a_wrong_password_is_said_and_never_shown(tmp_path: Path) -> None:
    with RedisServer(tmp_path, password="right-one") as server:
        for given, words in ((":wrong-one@", "refuses the user name or password"), ("", "refuses the user name or p")):
            store = open_store(server.url.replace("://", f"://{given}"), timeout_s=PATIENT_S)
            detail = await failure(store.ping())
            assert words in detail
            assert "wrong-one" not in detail
            await store.close()
        store = open_store(server.url.replace("://", "://:right-one@"), timeout_s=PATIENT_S)
        await store.ping()
        await store.close()


async def test_a_server_that_is_still_loading_says_so(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        store = open_store(server.url, timeout_s=PATIENT_S)
        await store.put_many({f"k/{i}": bytes(100) for i in range(5000)})
        server.command("SAVE")
        server.kill()
        # Loading takes a minute, of which the test sees the beginning; ten times a second the server listens.
        server.launch("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
        said: set[str] = set()
        async with asyncio.timeout(BACK_LIMIT_S):
            while not any("still loading" in detail for detail in said):
                try:
                    await store.ping()
                except StoreUnavailable as error:
                    said.add(error.detail)
                await asyncio.sleep(0.01)
        await store.close()


def test_an_address_never_shows_its_password() -> None:
    address = store_address("redis://me:secret@host:1/2")
    assert "secret" not in repr(address)
