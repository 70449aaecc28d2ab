"""Connections: each request under way has an httpx client to itself.

At every request a pool of httpx looks through all of its connections, for each of them. With 64 requests under way that
costs more than the requests, so each pool here holds one connection for each replica.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Http = TypeVar("Http")


class Lanes(Generic[Http]):
    """The httpx clients of one process or event loop: as many as there ever were requests at once."""

    def __init__(self, make: Callable[[], Http]) -> None:
        self._make = make
        self._idle: list[Http] = []
        self.all: list[Http] = []

    @contextmanager
    def lane(self) -> Iterator[Http]:
        """A client for one request: the one that was used last, whose connection is the most likely to be open."""
        try:
            http = self._idle.pop()
        except IndexError:
            http = self._make()
            self.all.append(http)
        try:
            yield http
        finally:
            self._idle.append(http)
