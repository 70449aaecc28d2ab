"""The servers of one hosted model: all must serve the same; who is up is checked in the background."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from reward_service.engine.hosted.link import Unavailable
from reward_service.engine.hosted.protocol import Outgoing
from reward_service.engine.hosted.server import Server, State, Verified
from reward_service.errors import NotReady

log = logging.getLogger(__name__)

CHECK_S = 5.0
"""How often each server is asked whether it is healthy."""
REFUSED_CHECK_S = 60.0
"""How often one that answers, but cannot be used, shows anew what it serves."""
MOST_CALLS = 16
"""Calls that a server has at once: enough to batch from, few enough that another server can take the rest."""
SAME_MODEL = {"float32": 2e-3, "float16": 0.0125, "bfloat16": 0.04}
"""Most that a golden score may differ between servers of one model, relative to the largest of them. Rounding to
bfloat16 changed the scores of random models of 24 to 48 layers by up to 4 %."""


class Fleet:
    """Servers by how they do. `on_change` is called when one comes up or goes down."""

    def __init__(self, model: str, servers: Sequence[Server], golden: Sequence[Outgoing], dtype: str) -> None:
        self.model = model
        self.servers = list(servers)
        self.on_change: Callable[[], None] = lambda: None
        self._reference: Verified | None = None
        self._golden = golden
        self._tolerance = SAME_MODEL[dtype]
        self._checks: list[asyncio.Task[None]] = []

    @property
    def failure(self) -> str | None:
        """Why no server can score now; None when one can, or may."""
        if any(server.state in (State.UP, State.SUSPECT) for server in self.servers):
            return None
        return "; ".join(f"{server.url}: {server.why}" for server in self.servers)

    async def start(self) -> Verified:
        """Verifies every server and keeps checking; the first in order that can be used is what the others must equal.

        Raises NotReady with the reason of each when there is none.
        """
        found = await asyncio.gather(*(self._verified(server) for server in self.servers))
        reference = next((one for one in found if one is not None), None)
        if reference is None:
            raise NotReady(f"model {self.model!r}: no server can be used: {self.failure}")
        self._reference = reference
        for server, verified in zip(self.servers, found, strict=True):
            if verified is not None:
                self._admit(server, verified, reference)
        self._checks = [asyncio.create_task(self._watch(server)) for server in self.servers]
        return reference

    async def close(self) -> None:
        """Stops the checks."""
        for check in self._checks:
            check.cancel()
        for check in self._checks:
            with contextlib.suppress(asyncio.CancelledError):
                await check

    def free(self) -> Server | None:
        """The server with the fewest outstanding tokens among those that take a call now."""
        now = time.monotonic()
        ready = [
            one for one in self.servers if one.state is State.UP and one.calls < MOST_CALLS and one.busy_until <= now
        ]
        return min(ready, key=lambda one: (one.outstanding, one.calls), default=None)

    def suspect(self, server: Server, why: str) -> None:
        """A call failed: no more of them until a check has passed, which begins now."""
        if server.state is State.UP:
            log.warning("model %s: %s: %s", self.model, server.url, why)
            server.state, server.why = State.SUSPECT, why
        server.wake.set()

    async def _watch(self, server: Server) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSED_CHECK_S if server.state is State.REFUSED else CHECK_S):
                    await server.wake.wait()
            server.wake.clear()
            try:
                await self._check(server)
            except Exception as error:  # the checks outlive whatever a server answers
                log.exception("model %s: the check of %s failed", self.model, server.url)
                self._put_out(server, State.DOWN, f"its check failed: {type(error).__name__}: {error}")
                self.on_change()

    async def _check(self, server: Server) -> None:
        """One that was up need only say so; any other shows anew what it serves."""
        if server.state is State.UP:
            try:
                await server.link.healthy(server.protocol.health)
            except Unavailable as error:
                self.suspect(server, str(error))
            return
        verified = await self._verified(server)
        if verified is not None:
            self._admit(server, verified, self._reference or verified)
        self.on_change()

    async def _verified(self, server: Server) -> Verified | None:
        """What a server showed; None, with the reason kept, when it is down or cannot be used."""
        try:
            return await server.verify(self._golden)
        except Unavailable as error:
            self._put_out(server, State.DOWN, str(error))
        except NotReady as error:
            self._put_out(server, State.REFUSED, str(error))
        return None

    def _admit(self, server: Server, verified: Verified, reference: Verified) -> None:
        if (problem := _difference(verified, reference, self._tolerance)) is not None:
            self._put_out(server, State.REFUSED, problem)
            return
        if server.state in (State.DOWN, State.REFUSED) and self._checks:
            log.warning("model %s: %s is back in service", self.model, server.url)
        server.state, server.why, server.verified = State.UP, "", verified

    def _put_out(self, server: Server, state: State, why: str) -> None:
        if server.why != why:
            log.warning("model %s: %s is not used: %s", self.model, server.url, why)
        server.state, server.why = state, why


def _difference(found: Verified, reference: Verified, tolerance: float) -> str | None:
    """Why two servers do not serve the same model; None when they do."""
    if found is reference:
        return None
    n = min(len(found.golden), len(reference.golden))
    scale = np.abs(reference.golden).max(axis=0)
    apart = np.abs(found.golden[:n] - reference.golden[:n]).max(axis=0)
    if (apart <= tolerance * scale).all():
        return None
    return (
        f"it serves another model than the first server ({found.identity.served}): golden scores differ by up to"
        f" {apart.max():.3g}, at most {(tolerance * scale).min():.3g} apart allowed"
    )
