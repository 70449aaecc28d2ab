"""Leases: which replica computes what, agreed in the store; they end by themselves when their holder dies."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from reward_service.errors import StoreUnavailable
from reward_service.stores import Store, Values

LEASE_S = 5.0
"""So long others wait for a replica that died while it computed."""
RENEWED_EVERY_S = LEASE_S / 4
PREFIX = "lease/"


class Leases:
    """The leases of one process on keys of a store.

    They only save work: who computes without one, or longer than one, stores the same numbers.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holder = uuid4().bytes

    async def claimed(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that nobody holds, now held by this process; StoreUnavailable."""
        items = {PREFIX + key: self._holder for key in keys}
        try:
            is_mine = await self._store.add_many(items, ttl_s=LEASE_S)
        except asyncio.CancelledError:
            await self._release(list(items))
            raise
        return {key for key, mine in zip(keys, is_mine, strict=True) if mine}

    @asynccontextmanager
    async def kept(self, keys: Collection[str]) -> AsyncIterator[None]:
        """Hold the leases until the end of the block, also when it fails."""
        names = [PREFIX + key for key in keys]
        if not names:
            yield
            return
        renewal = asyncio.create_task(self._renew(names))
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.wait([renewal])
            await self._release(names)

    async def _renew(self, names: Sequence[str]) -> None:
        while True:
            await asyncio.sleep(RENEWED_EVERY_S)
            with suppress(StoreUnavailable):  # a renewal that is missed may cost a second computation
                await self._store.put_many(dict.fromkeys(names, self._holder), ttl_s=LEASE_S)

    async def _release(self, names: Sequence[str]) -> None:
        with suppress(StoreUnavailable):  # the leases end by themselves
            await self._store.update(names, self._released)

    def _released(self, values: Values) -> Values:
        return [None if value == self._holder else value for value in values]
