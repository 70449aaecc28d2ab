"""A store in this process: for tests and trials, lost at exit."""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence

from reward_service.errors import StoreUnavailable
from reward_service.stores.base import PAGE, Change, Values, changed, checked_keys, distinct_keys, expiry


class MemoryStore:
    """A Store in a dict. No method awaits anything, so on one event loop each is atomic."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._items: dict[str, tuple[bytes, float | None]] = {}
        self._expiries: list[tuple[float, str]] = []
        self._clock = clock
        self._closed = False

    async def get_many(self, keys: Sequence[str]) -> Values:
        """The values of `keys` in order, None where there is none."""
        self._sweep()
        return self._values(checked_keys(keys))

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        """Write all items; they expire after `ttl_s` seconds if given, else never."""
        self._sweep()
        expires_at = expiry(self._clock(), ttl_s)
        for key in checked_keys(list(items)):
            self._write(key, items[key], expires_at)

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        """Write each item whose key has no value, to expire after `ttl_s` seconds, and say which were written."""
        self._sweep()
        expires_at = expiry(self._clock(), ttl_s)
        is_free = [key not in self._items for key in checked_keys(list(items))]
        for (key, value), free in zip(items.items(), is_free, strict=True):
            if free:
                self._write(key, value, expires_at)
        return is_free

    async def update(self, keys: Sequence[str], change: Change) -> Values:
        """Replace the values of `keys` by `change(values)` (None deletes) and return the new values."""
        self._sweep()
        before = self._values(distinct_keys(keys))
        after = changed(change, before)
        for key, old, new in zip(keys, before, after, strict=True):
            if new is None:
                self._items.pop(key, None)
            elif new != old:
                self._write(key, new, None)
        return after

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, bytes]]:
        """The first `limit` lasting items whose key starts with `prefix` and is greater than `after`, in key order."""
        self._sweep()
        lasting = (key for key, (_, expires_at) in self._items.items() if expires_at is None)
        keys = heapq.nsmallest(limit, (key for key in lasting if key.startswith(prefix) and key > after))
        return [(key, self._items[key][0]) for key in keys]

    async def ping(self) -> None:
        """Return when the store is open."""
        self._sweep()

    async def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._items.clear()

    def _values(self, keys: Sequence[str]) -> Values:
        found = (self._items.get(key) for key in keys)
        return [None if item is None else item[0] for item in found]

    def _write(self, key: str, value: bytes, expires_at: float | None) -> None:
        self._items[key] = (value, expires_at)
        if expires_at is not None:
            heapq.heappush(self._expiries, (expires_at, key))

    def _sweep(self) -> None:
        if self._closed:
            raise StoreUnavailable("the memory store is closed")
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            expires_at, key = heapq.heappop(self._expiries)
            if key in self._items and self._items[key][1] == expires_at:
                del self._items[key]
