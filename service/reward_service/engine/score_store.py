"""The store behind the score cache: many scores per round trip, and never worth waiting for."""

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence

from reward_service.stores import Store, Values

log = logging.getLogger(__name__)

READ_LIMIT_S = 0.25
"""So long a look-up may take; computing a score anew is not much slower."""
WRITE_LIMIT_S = 5.0
CLOSE_LIMIT_S = 10.0
QUIET_S = 5.0
"""A store that failed or was too slow is left alone for so long."""
WRITTEN_AT_ONCE = 512
MOST_WAITING = 16_384
"""So many scores wait to be written at most; while there are more, new ones stay in memory only."""


class ScoreStore:
    """Reads within a limit and writes in the background; used from one event loop.

    A store that fails or is slow costs a request `READ_LIMIT_S` at most and raises nothing here: what it holds counts
    as not kept, and for `QUIET_S` it is not asked again. Then one look-up tries it while all others do without it.
    """

    def __init__(self, store: Store, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._waiting: dict[str, bytes] = {}
        self._writer: asyncio.Task[None] | None = None
        self._quiet_until = 0.0
        self._is_doubtful = False
        self._reads = 0

    async def get_many(self, keys: Sequence[str]) -> Values:
        """The records of `keys`, None where there is none or the store does not answer; one round trip."""
        if self._is_quiet or (self._is_doubtful and self._reads):
            return [None] * len(keys)
        self._reads += 1
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                values = await self._store.get_many(keys)
        except Exception as error:  # whatever a store does, its scores can be computed
            self._leave_alone(f"no answer within {READ_LIMIT_S:g} s" if _is_late(error) else str(error))
            return [None] * len(keys)
        finally:
            self._reads -= 1
        self._is_doubtful = False
        return values

    def put(self, key: str, record: bytes) -> None:
        """Write the record soon, together with others; it is let go where the store cannot take it."""
        if self._is_quiet or len(self._waiting) >= MOST_WAITING:
            return
        self._waiting[key] = record
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Write what waits, for `CLOSE_LIMIT_S` at most. The store itself stays open."""
        if self._writer is not None:
            _, late = await asyncio.wait([self._writer], timeout=CLOSE_LIMIT_S)
            if late:
                self._writer.cancel()
                await asyncio.wait(late)

    @property
    def _is_quiet(self) -> bool:
        return time.monotonic() < self._quiet_until

    async def _write(self) -> None:
        while self._waiting:
            batch = dict(itertools.islice(self._waiting.items(), WRITTEN_AT_ONCE))
            for key in batch:
                del self._waiting[key]
            try:
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await self._store.put_many(batch, ttl_s=self._ttl_s)
            except Exception as error:  # the scores are answered already: they are only not kept
                self._waiting.clear()
                self._leave_alone(f"a write took over {WRITE_LIMIT_S:g} s" if _is_late(error) else str(error))

    def _leave_alone(self, reason: str) -> None:
        if not self._is_quiet:
            log.warning("scores are not read from the store or kept in it for %g s: %s", QUIET_S, reason)
        self._quiet_until = time.monotonic() + QUIET_S
        self._is_doubtful = True


def _is_late(error: Exception) -> bool:
    return isinstance(error, TimeoutError)
