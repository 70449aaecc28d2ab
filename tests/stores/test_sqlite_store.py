"""What only the SQLite store does: files, restarts, other processes."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from reward_service.errors import StoreUnavailable
from reward_service.stores import SqliteStore
from tests.stores.clocks import SetClock

COUNT_TO_50 = """
import asyncio, sys
from reward_service.stores import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1], busy_timeout_s=120)
    for _ in range(50):
        await store.update(["count"], lambda values: [str(int(values[0] or b"0") + 1).encode()])
    await store.close()

asyncio.run(main())
"""


async def test_values_survive_a_restart(tmp_path: Path) -> None:
    clock = SetClock()
    first = SqliteStore(tmp_path / "store.db", clock=clock)
    await first.put_many({"a": b"\0\xff"})
    await first.put_many({"gone": b"1"}, ttl_s=10)
    await first.close()
    await clock.advance(10)
    second = SqliteStore(tmp_path / "store.db", clock=clock)
    assert await second.get_many(["a", "gone"]) == [b"\0\xff", None]
    await second.close()


async def test_values_survive_a_process_that_never_closes(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, sys; from reward_service.stores import SqliteStore\n"
        "asyncio.run(SqliteStore(sys.argv[1]).put_many({'a': b'1'})); os._exit(9)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path / "store.db"))
    assert await process.wait() == 9
    store = SqliteStore(tmp_path / "store.db")
    assert await store.get_many(["a"]) == [b"1"]
    await store.close()


def test_processes_that_create_and_update_one_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    processes = [subprocess.Popen([sys.executable, "-c", COUNT_TO_50, str(path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM items").fetchall() == [(b"150",)]


async def test_expired_items_leave_the_file_with_the_next_put(tmp_path: Path) -> None:
    now = 0.0
    store = SqliteStore(tmp_path / "store.db", clock=lambda: now)
    await store.put_many({"a": b"1"}, ttl_s=10)
    now = 11.0
    await store.put_many({"b": b"2"})
    await store.close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute("SELECT key FROM items").fetchall() == [("b",)]


async def test_nothing_is_created_before_the_first_operation(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a" / "store.db")
    assert not (tmp_path / "a").exists()
    await store.ping()
    assert (tmp_path / "a" / "store.db").exists()
    await store.close()


async def refused(path: Path) -> str:
    store = SqliteStore(path, busy_timeout_s=0.05)
    with pytest.raises(StoreUnavailable) as caught:
        await store.get_many(["a"])
    await store.close()
    return caught.value.detail


async def test_a_file_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.ping()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("PRAGMA user_version = 7")
    assert await refused(tmp_path / "store.db") == (
        f"{tmp_path / 'store.db'} has schema version 7; this release reads version 1"
    )


async def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE items (x)")
    before = path.read_bytes()
    assert "another program" in await refused(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database " * 100)
    assert "file is not a database" in await refused(path)


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "failed" in await refused(tmp_path / "file" / "store.db")


async def test_a_locked_file_is_unavailable_until_the_lock_goes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, busy_timeout_s=0.05)
    await store.put_many({"a": b"1"})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="database is locked"):
            await store.put_many({"a": b"2"})
        assert await store.get_many(["a"]) == [b"1"]
        other.execute("ROLLBACK")
    await store.put_many({"a": b"3"})
    assert await store.get_many(["a"]) == [b"3"]
    await store.close()


async def test_a_full_disk_is_unavailable_and_what_was_stored_stays(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.put_many({"a": b"1"})
    await store._run(lambda connection: connection.execute("PRAGMA max_page_count = 10").fetchone())
    with pytest.raises(StoreUnavailable, match="full"):
        await store.put_many({"a": b"2", "big": bytes(1_000_000)})
    assert await store.get_many(["a", "big"]) == [b"1", None]
    await store.close()


async def test_a_corrupt_file_is_unavailable_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.put_many({f"key/{i}": bytes(1000) for i in range(100)})
    await store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    path.write_bytes(content)
    assert "malformed" in await refused(path)
