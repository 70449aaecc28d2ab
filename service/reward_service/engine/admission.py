"""What may enter a device's queue: an account of tokens, and requests cut into slices that enter as room appears."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from reward_service.engine.doors import Arrival, Door, Room
from reward_service.engine.engine import Item, Priority

MAX_SLICE_TOKENS = 32_768
MAX_BYTES_PER_TOKEN = 64
"""No real text has longer tokens on average: an item of more bytes than this allows is refused unrendered."""


def content(item: Item) -> bytes:
    """What is rendered of an item, before it is."""
    parts = [item.text, item.tools, item.messages]
    return json.dumps(parts, ensure_ascii=False, default=str).encode(errors="surrogatepass")


class Account:
    """The tokens that one device may hold, waiting or computing. Used from one event loop.

    A new request enters at once or is told when to come back; a request that is inside waits for room in turn, and
    goes before new ones. Requests of one slice, larger ones, rollouts and jobs have doors of their own, so that none
    of them keeps another out. `tokens_per_s` is how fast a model is answered, 0 before that is known.
    """

    def __init__(self, budget: int, tokens_per_s: Callable[[str], float]) -> None:
        self.budget = budget
        self.held = 0
        self.parts = 0
        self._doors = {(priority, large): Door(tokens_per_s) for priority in Priority for large in (False, True)}
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def share(self) -> int:
        """Most tokens of one request: all that are inside in part hold half of the budget, the rest is for others."""
        return max(self.slice_tokens, self.budget // (2 * max(1, self.parts)))

    @property
    def slice_tokens(self) -> int:
        """About how many tokens are rendered at once."""
        return max(1, min(MAX_SLICE_TOKENS, self.budget // 16))

    @property
    def work_s(self) -> float:
        """How long the device needs for all that is inside, what is not in its queue yet included."""
        return sum(door.work_s for door in self._doors.values())

    def door(self, arrival: Arrival) -> Door:
        """Where a request enters."""
        return self._doors[arrival.priority, arrival.tokens > arrival.first]

    def enter(self, arrival: Arrival) -> None:
        """Takes room for a request's first slice; raises Overloaded when it may not enter now."""
        fits = not self._waiting and self._fits(arrival.first)
        urgent = [door for (priority, _), door in self._doors.items() if priority < arrival.priority]
        self.door(arrival).enter(
            arrival, Room(self.budget, self.held, open=fits), urgent_s=sum(door.work_s for door in urgent)
        )
        self.held += arrival.first

    async def wait(self, tokens: int) -> None:
        """Takes room for more of a request that is inside, in turn."""
        if not self._waiting and self._fits(tokens):
            self.held += tokens
            return
        entry = (tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            self._leave(entry)
            raise

    def correct(self, tokens: int) -> None:
        """Adds what rendering found beyond the estimate, or gives back what the estimate had too much."""
        self.held += tokens
        self._grant()

    def release(self, tokens: int) -> None:
        """Gives room back."""
        self.correct(-tokens)

    def _fits(self, tokens: int) -> bool:
        return self.held == 0 or self.held + tokens <= self.budget

    def _leave(self, entry: tuple[int, "asyncio.Future[None]"]) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._grant()
        elif not entry[1].cancelled():  # granted, and the caller left before it could see that
            self.release(entry[0])

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            tokens, future = self._waiting.popleft()
            if not future.done():
                self.held += tokens
                future.set_result(None)


@dataclass(slots=True)
class Hold:
    """What one request holds of an account, and what it brings yet; `close` gives all of it back.

    Whatever it holds is being rendered or queued for the device, so room comes back while others wait for theirs.
    """

    account: Account
    arrival: Arrival | None = None
    held: int = 0
    to_come: int = 0
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    async def enter(self, arrival: Arrival, *, admitted: bool) -> None:
        """Takes room for the first slice: now or Overloaded, in turn when the request is `admitted` already."""
        if admitted:
            await self.account.wait(arrival.first)
        else:
            self.account.enter(arrival)
        self.arrival, self.held, self.to_come = arrival, arrival.first, arrival.tokens - arrival.first
        self.account.parts += self.to_come > 0
        self._count(arrival.tokens)

    async def take(self, tokens: int) -> None:
        """Takes room for the next slice, in turn."""
        while self.held and self.held + tokens > self.account.share:
            self._freed.clear()
            await self._freed.wait()
        await self.account.wait(tokens)
        self.held += tokens
        came = min(tokens, self.to_come - 1)  # all has come when the caller says so
        self.to_come -= came
        self._count(tokens - came)

    def complete(self) -> None:
        """Nothing more comes."""
        if self.to_come:
            self.account.parts -= 1
        self._count(-self.to_come)
        self.to_come = 0

    def correct(self, tokens: int) -> None:
        """Counts the tokens that rendering found instead of the estimate."""
        self.held += tokens
        self._count(tokens)
        self.account.correct(tokens)
        self._freed.set()

    def release(self, tokens: int) -> None:
        """Gives back what one answered item held; nothing more after `close`, which gave it back already."""
        self.correct(-min(tokens, self.held))

    def close(self) -> None:
        """Gives everything back."""
        self.complete()
        self.release(self.held)

    def _count(self, tokens: int) -> None:
        if self.arrival is not None:
            self.account.door(self.arrival).inside[self.arrival.model] += tokens


@dataclass(slots=True)
class Yardstick:
    """How many bytes of a model's conversations make a token, learnt from what was rendered."""

    bytes: float = 4_000.0
    tokens: float = 1_000.0

    def estimate(self, size: int) -> int:
        """Tokens that so many bytes will probably be."""
        return max(1, round(size * self.tokens / self.bytes))

    def learn(self, size: int, tokens: int) -> None:
        """Counts a rendered slice; older ones fade."""
        self.bytes = 0.9 * self.bytes + size
        self.tokens = 0.9 * self.tokens + tokens


def slices(sized: Iterable[tuple[int, int]], limit: int) -> Iterator[tuple[list[int], int]]:
    """Cuts (index, tokens) pairs into slices of about `limit` tokens: their indices and their sum; none is empty."""
    indices: list[int] = []
    total = 0
    for index, tokens in sized:
        if indices and total + tokens > limit:
            yield indices, total
            indices, total = [], 0
        indices.append(index)
        total += tokens
    if indices:
        yield indices, total
