"""What the metrics and the access line are told of a scored request."""

from collections.abc import Sequence

import numpy as np

from reward_service.engine.engine import Estimate
from reward_service.objectives import Objective
from reward_service.rewards.scales import Array
from reward_service.schemas import ScoreAnswer
from reward_service.scoring.outcome import Outcome
from reward_service.telemetry import Metrics, current_request


def note_outcome(metrics: Metrics, objective: Objective, outcome: Outcome) -> None:
    """Count conversations, errors, baseline sources, and the numbers themselves."""
    errors = [error.code for error in outcome.errors if error is not None]
    sources = [found.source for one in outcome.terms for found in one.found if found is not None]
    metrics.on_scored(objective.name, len(outcome.errors), errors=_counts(errors), sources=_counts(sources))
    if outcome.errors:
        metrics.on_numbers(objective.name, [term.name for term in objective.terms], numbers(outcome))


def _counts(words: list[str]) -> dict[str, int]:
    return {word: words.count(word) for word in set(words)}


def numbers(outcome: Outcome) -> Array:
    """Raw and transformed of each term in turn and then the reward, (2 * terms + 1, n); NaN where there is none."""
    rows = np.empty((2 * len(outcome.terms) + 1, len(outcome.errors)))
    for i, one in enumerate(outcome.terms):
        rows[2 * i] = one.raw
        rows[2 * i + 1] = _where_right(one.values.value, one.errors)
    rows[-1] = _where_right(outcome.rewards, outcome.errors)
    return rows


def _where_right(numbers: Array, errors: Sequence[object | None]) -> Array:
    return np.where([error is None for error in errors], numbers, np.nan) if any(errors) else numbers


def note_request(spent: Sequence[Estimate], answer: ScoreAnswer) -> None:
    """Note on the request what it has cost, for its access line and the stage metrics."""
    request = current_request()
    if request is None:
        return
    request.conversations, request.tokens = len(answer.scores), answer.usage.tokens
    if any(estimate.tokens_computed for estimate in spent):
        request.add("queue", answer.timings_ms.queue / 1e3)
        request.add("compute", answer.timings_ms.compute / 1e3)
