"""Which waiting work makes the next batch: pure functions over what a lane holds."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.rendering import Rendered

WINDOW_BATCHES = 8
"""A batch is chosen among the first so many batches' worth of waiting tokens: similar lengths, near the front."""
SMALL_PADDING = 1024
"""Padding tokens that cost less than another batch would."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A caller that waits for a piece of work."""

    answer: "asyncio.Future[Estimate | ItemError]"
    deadline: float
    since: float
    response_tokens: int | None

    def here(self, now: float) -> bool:
        """Whether the caller still wants the answer."""
        return not self.answer.done() and now < self.deadline


@dataclass(slots=True, eq=False)
class Work:
    """One distinct item to compute, and everyone who waits for it."""

    rendered: Rendered
    priority: Priority
    turn: int
    order: int
    waiters: list[Waiter] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Its length."""
        return self.rendered.tokens

    def wanted(self, now: float) -> bool:
        """Whether anyone still waits for it."""
        return any(waiter.here(now) for waiter in self.waiters)


Rank = Callable[[Work], tuple[int, ...]]


def by_priority(work: Work) -> tuple[int, ...]:
    """Rollouts before jobs; within them callers in turn, whatever the size of their requests."""
    return (work.priority, work.turn, work.order)


def by_age(work: Work) -> tuple[int, ...]:
    """The oldest first."""
    return (work.order,)


def padded_tokens(lengths: Sequence[int]) -> int:
    """Tokens of a batch with its padding."""
    return len(lengths) * max(lengths)


def choose(works: Iterable[Work], rank: Rank, max_batch_tokens: int) -> list[Work]:
    """The next batch: the first in rank, and those behind it whose length is closest, padding included in the limit.

    Work of the first's priority fills the batch before other work does.
    """
    ranked = sorted(works, key=rank)
    head, behind = ranked[0], _window(ranked[1:], WINDOW_BATCHES * max_batch_tokens)
    batch = [head]
    for same in (True, False):
        candidates = [work for work in behind if (work.priority == head.priority) is same]
        _grow(batch, sorted(candidates, key=lambda work: abs(work.tokens - head.tokens)), max_batch_tokens)
    return batch


def _window(ranked: Sequence[Work], limit: int) -> list[Work]:
    window: list[Work] = []
    total = 0
    for work in ranked:
        total += work.tokens
        if total > limit:
            break
        window.append(work)
    return window


def _grow(batch: list[Work], candidates: Iterable[Work], max_batch_tokens: int) -> None:
    rows, longest, total = len(batch), max(work.tokens for work in batch), sum(work.tokens for work in batch)
    for work in candidates:
        padded = (rows + 1) * max(longest, work.tokens)
        padding = padded - total - work.tokens
        if padded > max_batch_tokens or padding > max(SMALL_PADDING, padded // 4):
            continue
        batch.append(work)
        rows, longest, total = rows + 1, max(longest, work.tokens), total + work.tokens
