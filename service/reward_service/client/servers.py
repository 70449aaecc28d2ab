"""The replicas that a client knows: which takes the next request, and which is left alone for a while."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom

FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
random = SystemRandom()
"""Not the generator that a trainer seeds: ranks with one seed would all choose, and all come back, at the same time."""


@dataclass(eq=False, slots=True)
class Server:
    """One replica: how many requests of this client it has now, and how often it failed since it last answered."""

    url: str
    outstanding: int = 0
    failures: int = 0
    failed_at: float = -math.inf
    rests_until: float = -math.inf


@dataclass(frozen=True, slots=True)
class Taken:
    """A server with room for one more request; one that failed before is asked first whether it is back."""

    server: Server
    since: float
    is_probe: bool


class Servers:
    """The replicas of a service; may be used from several threads.

    While others work, a replica that failed rests, twice as long after each failure; then one request at a time tries
    it. When none works, none rests: each call waits by itself.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._servers = [Server(url) for url in urls]
        self._lock = threading.Lock()

    def take(self, not_before: Mapping[Server, float]) -> Taken | float:
        """The server with the fewest requests of this client, or when there may be one to ask (`time.monotonic`).

        `not_before` says when the call may ask a server again.
        """
        with self._lock:
            now = time.monotonic()
            has_working = any(not server.failures for server in self._servers)
            times = {one: max(_opens_at(one, has_working), not_before.get(one, now)) for one in self._servers}
            ready = [server for server, at in times.items() if at <= now]
            if not ready:
                return min(times.values())
            chosen = min(ready, key=lambda server: (server.outstanding, random.random()))
            chosen.outstanding += 1
            return Taken(chosen, now, is_probe=has_working and chosen.failures > 0)

    def give_back(self, taken: Taken, has_worked: bool | None) -> None:
        """The request is over; None when it says nothing about the server."""
        server = taken.server
        with self._lock:
            server.outstanding -= 1
            if has_worked:
                server.failures = 0
            elif has_worked is False and taken.since >= server.failed_at:  # else it is the same outage
                server.failures += 1
                server.failed_at = time.monotonic()
                rest = min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(server.failures - 1, 10))
                server.rests_until = server.failed_at + rest


def _opens_at(server: Server, has_working: bool) -> float:
    """When a server may be asked; never, while one request tries whether it is back."""
    if not server.failures or not has_working:
        return -math.inf
    return math.inf if server.outstanding else server.rests_until
