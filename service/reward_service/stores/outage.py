"""When a store that failed may be asked again: soon, by one caller, and later each time it fails again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from reward_service.errors import StoreUnavailable

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class Outage:
    """Whether a store is believed to be down; used from one event loop.

    While it is, calls fail at once with the reason of the last failure. After a pause, which doubles up to a second and
    is jittered, the first caller asks `probe` whether the store is back and all others wait for what it finds.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._probing = asyncio.Lock()
        self._reason: str | None = None
        self._failures = 0
        self._retry_at = 0.0

    def begin(self, reason: str) -> None:
        """Note that the store failed just now."""
        if time.monotonic() >= self._retry_at:  # calls that were under way when it failed are one failure
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._failures)
            self._failures = min(self._failures + 1, 16)
            self._retry_at = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._reason = reason

    async def check(self) -> None:
        """Return when the store may be asked; else StoreUnavailable."""
        if self._is_over():
            return
        self.refuse_too_soon()
        async with self._probing:
            if self._is_over():
                return
            self.refuse_too_soon()
            await self._probe()  # says by StoreUnavailable, and by `begin`, that the store is still down
            self._reason, self._failures = None, 0

    def _is_over(self) -> bool:
        return self._reason is None

    def refuse_too_soon(self) -> None:
        """Raise StoreUnavailable while the pause lasts."""
        if self._reason is not None and time.monotonic() < self._retry_at:
            raise StoreUnavailable(self._reason)
