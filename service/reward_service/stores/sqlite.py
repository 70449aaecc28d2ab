"""A store in one SQLite file: no set-up, survives restarts, shared safely by processes of one machine."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from reward_service.errors import StoreUnavailable
from reward_service.stores.base import END, PAGE, Change, Values, changed, checked_keys, distinct_keys, expiry

T = TypeVar("T")

APPLICATION_ID = 0x52575253  # "RWRS": tells our files from those of others
SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL)",
    "CREATE INDEX expiring ON items (expires_at) WHERE expires_at IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
LIVE = "(expires_at IS NULL OR expires_at > ?)"
WRITE = "INSERT OR REPLACE INTO items (key, value, expires_at) VALUES (?, ?, ?)"
LISTED = """
SELECT key, value FROM items WHERE key >= ? AND key > ? AND key < ? AND expires_at IS NULL ORDER BY key LIMIT ?
"""
CHUNK = 500  # variables per statement: old builds of SQLite admit 999


class SqliteStore:
    """A Store in the file `path`, which the first operation opens or creates. All of SQLite runs on one own thread."""

    def __init__(
        self, path: str | Path, *, busy_timeout_s: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-store")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def get_many(self, keys: Sequence[str]) -> Values:
        """The values of `keys` in order, None where there is none, all as of one moment."""
        checked_keys(keys)

        def work(connection: sqlite3.Connection) -> Values:
            with transaction(connection, "BEGIN"):
                return values(connection, keys, self._clock())

        return await self._run(work)

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        """Write all items or none; they expire after `ttl_s` seconds if given, else never."""
        checked_keys(list(items))
        now = self._clock()
        expires_at = expiry(now, ttl_s)
        written = [(key, value, expires_at) for key, value in items.items()]

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection, "BEGIN IMMEDIATE"):
                connection.execute("DELETE FROM items WHERE expires_at <= ?", (now,))
                connection.executemany(WRITE, written)

        await self._run(work)

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        """Write each item whose key has no value, to expire after `ttl_s` seconds, and say which were written."""
        keys = checked_keys(list(items))
        now = self._clock()
        expires_at = expiry(now, ttl_s)

        def work(connection: sqlite3.Connection) -> list[bool]:
            with transaction(connection, "BEGIN IMMEDIATE"):
                is_free = [value is None for value in values(connection, keys, now)]
                free = [key for key, free in zip(keys, is_free, strict=True) if free]
                connection.executemany(WRITE, [(key, items[key], expires_at) for key in free])
                return is_free

        return await self._run(work)

    async def update(self, keys: Sequence[str], change: Change) -> Values:
        """Replace the values of `keys` by `change(values)` atomically (None deletes) and return the new values."""
        distinct_keys(keys)

        def work(connection: sqlite3.Connection) -> Values:
            with transaction(connection, "BEGIN IMMEDIATE"):
                before = values(connection, keys, self._clock())
                after = changed(change, before)
                write_changes(connection, keys, before, after)
                return after

        return await self._run(work)

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, bytes]]:
        """The first `limit` lasting items whose key starts with `prefix` and is greater than `after`, in key order."""
        bounds = (prefix, after, prefix + END, limit)
        return await self._run(lambda connection: list(connection.execute(LISTED, bounds)))

    async def ping(self) -> None:
        """Return when the file can be read."""
        await self._run(lambda connection: connection.execute("SELECT 1 FROM items LIMIT 1").fetchone())

    async def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, work)

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = connect(self._path, self._busy_timeout_s)
            return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            if self._connection is not None and self._connection.in_transaction:
                self._disconnect()  # the rollback failed too: the next operation starts from a new connection
            raise StoreUnavailable(f"the store {self._path} failed: {error}") from error

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit what the block does, or roll all of it back when it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def values(connection: sqlite3.Connection, keys: Sequence[str], now: float) -> Values:
    """The live values of `keys` in order."""
    found: dict[str, bytes] = {}
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        marks = ",".join("?" * len(chunk))
        query = f"SELECT key, value FROM items WHERE key IN ({marks}) AND {LIVE}"  # noqa: S608
        found.update(connection.execute(query, (*chunk, now)))
    return [found.get(key) for key in keys]


def write_changes(connection: sqlite3.Connection, keys: Sequence[str], before: Values, after: Values) -> None:
    """Write the values that differ, delete those that are gone; the rest keep their expiry."""
    pairs = list(zip(keys, before, after, strict=True))
    connection.executemany("DELETE FROM items WHERE key = ?", [(key,) for key, _, new in pairs if new is None])
    connection.executemany(WRITE, [(key, new, None) for key, old, new in pairs if new is not None and new != old])


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open the file, creating it and its folders; refuse a file that is not ours or of another schema version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        if is_empty(connection):
            create(connection)
        check_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def create(connection: sqlite3.Connection) -> None:
    """Create the schema, unless another process was faster."""
    connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection, "BEGIN IMMEDIATE"):
        if is_empty(connection):
            for statement in SCHEMA:
                connection.execute(statement)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file has no tables at all, as a new one."""
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreUnavailable unless the file is a reward-service store of the version that this release reads."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreUnavailable(f"{path} is an SQLite file of another program, not a reward-service store")
    if version != SCHEMA_VERSION:
        raise StoreUnavailable(f"{path} has schema version {version}; this release reads version {SCHEMA_VERSION}")
