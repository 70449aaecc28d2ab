"""What an engine says of the golden conversations: each with all the others, and each alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.engine.parity.golden import Golden, golden_set
from reward_service.errors import ConversationTooLong, EngineFailed, RenderingFailed, ServiceError, TooLarge

LIMIT_S = 600.0
Result = Estimate | ItemError


class Scorer(Protocol):
    """What is used of an engine."""

    async def score(
        self,
        items: Sequence[Item],
        *,
        priority: Priority,
        deadline: float,
        admitted: bool = False,
        use_cache: bool = True,
    ) -> list[Result]:
        """One result per item, in order."""


@dataclass(frozen=True, slots=True)
class Observed:
    """n conversations that the engine scored, in the form that it took.

    `tokens` has the engine's count of each; `together` and `alone` are (n, outputs).
    """

    names: list[str]
    items: list[Item]
    tokens: list[int]
    together: NDArray[np.float64]
    alone: NDArray[np.float64]

    def only(self, places: Sequence[int]) -> "Observed":
        """Those at some of the places."""
        return Observed(
            names=[self.names[place] for place in places],
            items=[self.items[place] for place in places],
            tokens=[self.tokens[place] for place in places],
            together=self.together[list(places)],
            alone=self.alone[list(places)],
        )


@dataclass(frozen=True, slots=True)
class Unscored:
    """The first conversation that an engine could not score, and why."""

    name: str
    error: ServiceError


async def observe(engine: Scorer) -> Observed | Unscored:
    """Scores the golden set through the engine's own path; those that are too long for the model are left out."""
    results = await _in_first_form(engine, golden_set())
    items: list[tuple[Golden, Item]] = []
    together: list[Estimate] = []
    for golden, (item, result) in zip(golden_set(), results, strict=True):
        if isinstance(result, Estimate):
            items.append((golden, item))
            together.append(result)
        elif not isinstance(result.error, ConversationTooLong | TooLarge):
            return Unscored(golden.name, result.error)
    alone: list[Estimate] = []
    for golden, item in items:
        (result,) = await _ask(engine, [item])
        if isinstance(result, ItemError):
            return Unscored(golden.name, result.error)
        alone.append(result)
    if (odd := _odd_one(together + alone)) is not None:
        return Unscored(items[odd % len(items)][0].name, EngineFailed(_sizes(together + alone, odd)))
    return Observed(
        names=[golden.name for golden, _ in items],
        items=[item for _, item in items],
        tokens=[estimate.tokens for estimate in together],
        together=_outputs(together),
        alone=_outputs(alone),
    )


async def _in_first_form(engine: Scorer, conversations: Sequence[Golden]) -> list[tuple[Item, Result]]:
    """Each conversation in the first of its forms that the model's template takes."""
    asked = [one.forms[0] for one in conversations]
    found = list(zip(asked, await _ask(engine, asked), strict=True))
    for form in range(1, max(len(one.forms) for one in conversations)):
        refused = [
            place
            for place, (_, result) in enumerate(found)
            if _is_refused(result) and form < len(conversations[place].forms)
        ]
        asked = [conversations[place].forms[form] for place in refused]
        for place, item, result in zip(refused, asked, await _ask(engine, asked), strict=True):
            found[place] = item, result
    return found


async def _ask(engine: Scorer, items: Sequence[Item]) -> list[Result]:
    if not items:
        return []
    try:
        return await engine.score(
            items,
            priority=Priority.ROLLOUT,
            deadline=time.monotonic() + LIMIT_S,
            admitted=True,
            use_cache=False,
        )
    except TooLarge as error:  # none of them fits
        return [ItemError(error)] * len(items)


def _odd_one(estimates: Sequence[Estimate]) -> int | None:
    """The place of an estimate that has not as many outputs as the first."""
    return next((i for i, one in enumerate(estimates) if len(one.outputs) != len(estimates[0].outputs)), None)


def _sizes(estimates: Sequence[Estimate], odd: int) -> str:
    return f"it has {len(estimates[odd].outputs)} outputs, and others have {len(estimates[0].outputs)}"


def _is_refused(result: Result) -> bool:
    return isinstance(result, ItemError) and result.error.code == RenderingFailed.code


def _outputs(estimates: Sequence[Estimate]) -> NDArray[np.float64]:
    return np.array([estimate.outputs for estimate in estimates])
