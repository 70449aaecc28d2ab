"""A store whose every call is told to an observer: how long it took, and whether the store worked."""

import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from reward_service.errors import StoreUnavailable
from reward_service.stores.base import PAGE, Change, Store, Values

T = TypeVar("T")


class Observer(Protocol):
    """Told of every call."""

    def on_store(self, operation: str, seconds: float, *, worked: bool) -> None:
        """A call of `operation` has ended."""


class ObservedStore:
    """The store, with an observer; a call that its caller gave up says nothing about the store and is not told."""

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    async def get_many(self, keys: Sequence[str]) -> Values:
        """As the store's."""
        return await self._told("get_many", self._store.get_many(keys))

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        """As the store's."""
        await self._told("put_many", self._store.put_many(items, ttl_s=ttl_s))

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        """As the store's."""
        return await self._told("add_many", self._store.add_many(items, ttl_s=ttl_s))

    async def update(self, keys: Sequence[str], change: Change) -> Values:
        """As the store's."""
        return await self._told("update", self._store.update(keys, change))

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, bytes]]:
        """As the store's."""
        return await self._told("scan", self._store.scan(prefix, after=after, limit=limit))

    async def ping(self) -> None:
        """As the store's."""
        await self._told("ping", self._store.ping())

    async def close(self) -> None:
        """As the store's."""
        await self._store.close()

    async def _told(self, operation: str, call: Coroutine[Any, Any, T]) -> T:
        started = time.perf_counter()
        try:
            result = await call
        except StoreUnavailable:
            self._observer.on_store(operation, time.perf_counter() - started, worked=False)
            raise
        self._observer.on_store(operation, time.perf_counter() - started, worked=True)
        return result
