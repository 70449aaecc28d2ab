"""One computation per key, however many ask for it at once."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from reward_service.errors import DeadlineExceeded, EngineFailed, ServiceError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Compute = Callable[[list[K]], Coroutine[None, None, Mapping[K, V | ServiceError]]]


class Flight(Generic[K, V]):
    """One computation under way for several keys, and how many callers wait for it."""

    def __init__(self, keys: list[K], compute: Compute[K, V]) -> None:
        self.keys = keys
        self.waiting = 0
        self.task = asyncio.create_task(compute(keys))

    def results(self) -> Mapping[K, V | ServiceError]:
        """What came of it for the caller that began it, who gets everything, also what was raised."""
        if self.task.cancelled():
            raise EngineFailed("the computation of the canned responses was cancelled")
        return self.task.result()

    def shared_results(self) -> Mapping[K, V | ServiceError]:
        """What came of it for the other callers: not what the limits of the one that began it cut short."""
        if self.task.cancelled() or isinstance(self.task.exception(), DeadlineExceeded):
            return {}
        return {key: value for key, value in self.task.result().items() if not isinstance(value, DeadlineExceeded)}


class SingleFlight(Generic[K, V]):
    """Lets callers that miss the same keys at once share one computation.

    The computation belongs to no caller: it goes on when the one that began it is cancelled, and is cancelled when
    nobody waits any more. When the deadline of the caller that began it cut it short, another caller takes over.
    """

    def __init__(self) -> None:
        self._flights: dict[K, Flight[K, V]] = {}

    async def run(self, keys: Iterable[K], compute: Compute[K, V]) -> dict[K, V | ServiceError]:
        """A result or an error for each key, by `compute` for those that nobody computes yet.

        What `compute` raises is raised here, and to every caller that waits for it.
        """
        results: dict[K, V | ServiceError] = {}
        missing = list(dict.fromkeys(keys))
        while missing:
            own = self._launch([key for key in missing if key not in self._flights], compute)
            flights = {self._flights[key] for key in missing}
            landed = await self._join(flights, own)
            results.update({key: landed[key] for key in missing if key in landed})
            missing = [key for key in missing if key not in landed]
        return results

    def _launch(self, keys: list[K], compute: Compute[K, V]) -> Flight[K, V] | None:
        if not keys:
            return None
        flight = Flight(keys, compute)
        self._flights.update(dict.fromkeys(keys, flight))
        flight.task.add_done_callback(lambda _: self._land(flight))
        return flight

    def _land(self, flight: Flight[K, V]) -> None:
        self._forget(flight)
        if not flight.task.cancelled():
            flight.task.exception()  # retrieved, also when two flights of one caller fail and only one can be raised

    def _forget(self, flight: Flight[K, V]) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def _join(self, flights: Collection[Flight[K, V]], own: Flight[K, V] | None) -> dict[K, V | ServiceError]:
        """What all flights gave, without the keys of which another caller's flight was cut short."""
        for flight in flights:
            flight.waiting += 1
        try:
            await asyncio.wait([flight.task for flight in flights])
        finally:
            for flight in flights:
                self._leave(flight)
        landed: dict[K, V | ServiceError] = {}
        for flight in flights:
            landed.update(flight.results() if flight is own else flight.shared_results())
        return landed

    def _leave(self, flight: Flight[K, V]) -> None:
        flight.waiting -= 1
        if flight.waiting == 0 and not flight.task.done():
            self._forget(flight)
            flight.task.cancel()
