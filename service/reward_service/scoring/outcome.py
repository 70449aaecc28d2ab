"""From evaluated terms to rewards: which conversations have one, and why the others have none."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from reward_service.errors import NotFinite, ServiceError
from reward_service.objectives import Objective
from reward_service.rewards.scales import Array
from reward_service.scoring.terms import Evaluated, not_finite

T = TypeVar("T")
INLINE = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rewards (n,) of n conversations; where `errors` has one, the reward means nothing."""

    terms: Sequence[Evaluated]
    rewards: Array
    errors: list[ServiceError | None]


def combined(objective: Objective, terms: Sequence[Evaluated]) -> Outcome:
    """Combine the terms; a conversation fails with the first error of a term that counts."""
    rewards = objective.combine([one.values for one in terms])
    errors = _first_errors(objective, terms)
    for i in not_finite(rewards):
        errors[i] = errors[i] or NotFinite(f"the reward of {objective.name!r} is too large to represent")
    return Outcome(terms, rewards, errors)


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """The result of pure `work`: in a thread where it would hold the event loop for long, else at once."""
    return work() if size <= INLINE else await asyncio.to_thread(work)


def _first_errors(objective: Objective, terms: Sequence[Evaluated]) -> list[ServiceError | None]:
    """A watched term cannot fail the reward: its error stands beside it."""
    counted = [one.errors for term, one in zip(objective.terms, terms, strict=True) if term.weight > 0]
    return [next(filter(None, errors), None) for errors in zip(*counted, strict=True)]
