"""Work that goes on behind its answer: accepted here, its outcome in the store, where every replica finds it."""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from reward_service.errors import Overloaded, StoreUnavailable
from reward_service.stores import Store

log = logging.getLogger(__name__)
LEASE_S = 15.0
KEPT_S = 900.0
"""How long an outcome can be asked for after the work has ended."""
MOST_BYTES = 256 * 2**20
LEAST_BYTES = 4096
"""What one submission counts for at least; its task and its record take about that."""
RETRY_S = 1.0
GRACE_S = 10.0
Outcome = dict[str, Any]
Work = Callable[[], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a submission: its outcome, or that it is under way; neither, where nobody works on it."""

    outcome: Outcome | None = None
    is_under_way: bool = False


class Submissions:
    """The submissions of one replica, and a view of all others'. Used from one event loop.

    A replica renews one lease in the store for all of its work: when it dies, its submissions are lost and not awaited.
    """

    def __init__(self, store: Store, *, lease_s: float = LEASE_S, grace_s: float = GRACE_S) -> None:
        self._store = store
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._replica = secrets.token_hex(8)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bytes = 0
        self._keeper: asyncio.Task[None] | None = None
        self._is_held = False

    async def submit(self, work: Work, *, size: int, timeout_s: float) -> str:
        """Accept work of `size` bytes that ends within `timeout_s`, and name it; Overloaded when there is too much."""
        counted = max(size, LEAST_BYTES)
        if self._bytes + counted > MOST_BYTES:
            raise Overloaded(f"{len(self._tasks)} submissions wait already; come back", retry_after_s=RETRY_S)
        self._bytes += counted
        try:
            name = secrets.token_urlsafe(24)
            await self._hold_lease()
            await self._write(name, {"replica": self._replica}, ttl_s=timeout_s + KEPT_S)
        except BaseException:
            self._bytes -= counted
            raise
        task = asyncio.create_task(self._run(name, work), context=Context())
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._ended(name, counted))
        return name

    async def find(self, name: str, *, wait_s: float) -> Found:
        """What is known of a submission; one of this replica is waited for, but no longer than `wait_s`."""
        if task := self._tasks.get(name):
            await asyncio.wait([task], timeout=wait_s)
        record = await self._read(_key(name))
        if record is None or "outcome" in record:
            return Found(outcome=None if record is None else record["outcome"])
        if await self._works(record["replica"], name):
            return Found(is_under_way=True)
        record = await self._read(_key(name))  # it may have ended since the record was read
        return Found(outcome=record.get("outcome") if record else None)

    async def _works(self, replica: str, name: str) -> bool:
        """Whether a replica that accepted a submission is still at it."""
        if replica == self._replica:
            return name in self._tasks
        return await self._read(_lease(replica)) is not None

    async def close(self) -> None:
        """Ends what does not finish in time; whoever asks for it is told that it is lost."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._grace_s)
        tasks = [*self._tasks.values(), *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._keeper:
            with suppress(StoreUnavailable):
                await self._store.update([_lease(self._replica)], lambda _: [None])

    async def _run(self, name: str, work: Work) -> None:
        outcome = await work()
        async with asyncio.timeout(KEPT_S):
            while True:
                try:
                    return await self._write(name, {"outcome": outcome}, ttl_s=KEPT_S)
                except StoreUnavailable as error:
                    log.warning("the outcome of a submission could not be stored yet: %s", error)
                await asyncio.sleep(RETRY_S)

    def _ended(self, name: str, counted: int) -> None:
        task = self._tasks.pop(name)
        self._bytes -= counted
        if not task.cancelled() and (error := task.exception()):
            log.error("a submission has no outcome", exc_info=error)

    async def _hold_lease(self) -> None:
        """From the first submission on; whoever comes before the lease is in the store writes it too."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_lease(), context=Context())
        if not self._is_held:
            await self._renew()
            self._is_held = True

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            with suppress(StoreUnavailable):  # it is told where a submission or a poll needs the store
                await self._renew()

    async def _renew(self) -> None:
        await self._store.put_many({_lease(self._replica): b"{}"}, ttl_s=self._lease_s)

    async def _write(self, name: str, record: dict[str, Any], *, ttl_s: float) -> None:
        await self._store.put_many({_key(name): json.dumps(record).encode()}, ttl_s=ttl_s)

    async def _read(self, key: str) -> dict[str, Any] | None:
        (value,) = await self._store.get_many([key])
        return None if value is None else json.loads(value)


def _key(name: str) -> str:
    return f"submission/{name}"


def _lease(replica: str) -> str:
    return f"replica/{replica}"
