"""The work of one model that waits for its device: each distinct item once, in rank and in age."""

import asyncio
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.prefixes import sort_key
from reward_service.engine.rendering import Key, Rendered

SPARSE = 1024
"""So many places that nobody takes any more are let stand before the ranked list is written anew."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A caller that waits for a piece of work."""

    answer: "asyncio.Future[Estimate | ItemError]"
    deadline: float
    since: float
    response_tokens: int | None
    request_id: str | None = None

    def here(self, now: float) -> bool:
        """Whether the caller still wants the answer."""
        return not self.answer.done() and now < self.deadline


@dataclass(slots=True, eq=False)
class Work:
    """One distinct item to compute, and everyone who waits for it; `place` is its entry in the ranked list."""

    rendered: Rendered
    priority: Priority
    turn: int
    order: int
    waiters: "dict[asyncio.Future[Estimate | ItemError], Waiter]" = field(default_factory=dict)
    place: "Place | None" = None
    _sort_key: bytes | None = None

    @property
    def tokens(self) -> int:
        """Its length."""
        return self.rendered.tokens

    @property
    def sort_key(self) -> bytes:
        """Bytes that sort as its token ids do; made once, since its batch is chosen again until it is in it."""
        if self._sort_key is None:
            self._sort_key = sort_key(self.rendered.ids)
        return self._sort_key

    def wanted(self, now: float) -> bool:
        """Whether anyone still waits for it."""
        return any(waiter.here(now) for waiter in self.waiters.values())


Place = tuple[tuple[Priority, int, int], Work]


class Waiting:
    """Work by its key, by its rank (rollouts before jobs, then callers in turn, whatever the size of their requests)
    and by its age; only the front is ever looked at, so that a long queue costs no more than a short one.
    """

    def __init__(self) -> None:
        self._works: dict[Key, Work] = {}  # in the order of their age
        self.tokens = 0
        self._ranked: list[Place] = []  # with places that were left or bettered since: they are skipped

    def __len__(self) -> int:
        return len(self._works)

    def get(self, key: Key) -> Work | None:
        """The work that computes this item."""
        return self._works.get(key)

    def add(self, work: Work) -> None:
        """Work of a new item, younger than all that waits."""
        self._works[work.rendered.key] = work
        self.tokens += work.tokens
        self._rank(work)

    def advance(self, work: Work, priority: Priority, turn: int) -> None:
        """Moves work to where its most urgent waiter would stand."""
        if priority < work.priority or turn < work.turn:
            work.priority, work.turn = min(work.priority, priority), min(work.turn, turn)
            self._rank(work)

    def remove(self, work: Work) -> None:
        """Takes work out."""
        del self._works[work.rendered.key]
        self.tokens -= work.tokens
        work.place = None
        left = len(self._ranked) - len(self._works)
        if not self._works or left > SPARSE + len(self._works) // 4:
            self._ranked = [place for place in self._ranked if place[1].place is place]

    def clear(self) -> list[Work]:
        """All that waited."""
        works = list(self._works.values())
        for work in works:
            work.place = None
        self._works, self._ranked, self.tokens = {}, [], 0
        return works

    def in_rank(self) -> Iterator[Work]:
        """What is to be computed first comes first."""
        return (place[1] for place in self._ranked if place[1].place is place)

    def in_age(self) -> Iterator[Work]:
        """The oldest comes first."""
        return iter(self._works.values())

    def _rank(self, work: Work) -> None:
        work.place = ((work.priority, work.turn, work.order), work)
        insort(self._ranked, work.place, key=itemgetter(0))
