"""One term over all conversations of a request: raw scores and references in, transformed numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_service.config import StoredBaseline
from reward_service.engine.engine import Estimate
from reward_service.errors import BaselineUnusable, NotFinite, ServiceError
from reward_service.objectives import Term
from reward_service.rewards.references import Ragged, Summary, share_below, summaries
from reward_service.rewards.scales import Array, Scale, Values
from reward_service.rewards.transforms import Needs
from reward_service.scoring.referring import Found

Places = NDArray[np.int64] | slice
EVERYWHERE = slice(None)
DEFAULT_QUANTILE = 0.85
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A term's numbers for n conversations; where `errors` has one, the numbers are NaN or None.

    `raw`, `std` and `baseline` are (n,) in raw units; `share_below` (n,) only for terms that compare with references.
    """

    values: Values
    raw: Array
    std: Array
    raw_sources: list[str | None]
    baseline: Array
    share_below: Array | None
    found: list[Found | None]
    summaries: list[Summary | None]
    errors: list[ServiceError | None]


def evaluate(
    term: Term, estimates: Sequence[Estimate | ServiceError], found: Sequence[Found | ServiceError | None]
) -> Evaluated:
    """Transform the term's raw scores of n conversations; `found` is None throughout where the term needs nothing."""
    n = len(estimates)
    errors = [_first_error(estimate, reference) for estimate, reference in zip(estimates, found, strict=True)]
    usable = [None if isinstance(reference, ServiceError) else reference for reference in found]
    raw, std = _raw(term, estimates)
    taken = _summaries(term, usable)
    baseline = _baselines(term, taken)
    good = np.flatnonzero([error is None for error in errors]) if any(errors) else EVERYWHERE
    rows = _rows(term, usable, errors)
    values = _none(term, n) if all(errors) else _transformed(term, raw, baseline, rows, good)
    below = None if rows is None else _spread(share_below(raw[good], rows), good, n)
    for i in not_finite(values.value):
        errors[i] = errors[i] or _no_number(term, taken[i])
    return Evaluated(values, raw, std, _raw_sources(estimates), baseline, below, usable, taken, errors)


def _first_error(estimate: Estimate | ServiceError, found: Found | ServiceError | None) -> ServiceError | None:
    if isinstance(estimate, ServiceError):
        return estimate
    return found if isinstance(found, ServiceError) else None


def _raw(term: Term, estimates: Sequence[Estimate | ServiceError]) -> tuple[Array, Array]:
    raw = [NAN if isinstance(one, ServiceError) else one.outputs[term.output] for one in estimates]
    std = [NAN if isinstance(one, ServiceError) else _std(one, term.output) for one in estimates]
    return np.array(raw, dtype=np.float64), np.array(std, dtype=np.float64)


def _std(estimate: Estimate, output: int) -> float:
    if estimate.variance is None:
        return NAN
    variance = estimate.variance if estimate.variance.ndim == 1 else np.diagonal(estimate.variance)
    return float(np.sqrt(variance[output]))


def _summaries(term: Term, found: Sequence[Found | None]) -> list[Summary | None]:
    """The statistics of each conversation's references, taken once where references are shared or were kept."""
    stored = term.baseline if isinstance(term.baseline, StoredBaseline) else None
    quantile, method = (stored.quantile, stored.method) if stored else (DEFAULT_QUANTILE, "auto")
    if term.transform.needs is Needs.REFERENCES:
        method = "mean"
    statistic = (term.output, quantile, method)
    fresh = [one for one in dict.fromkeys(found) if one is not None and statistic not in one.summaries]
    for one, summary in zip(fresh, summaries([one.rows for one in fresh], quantile, method), strict=True):
        one.summaries[statistic] = summary
    return [None if one is None else one.summaries[statistic] for one in found]


def _baselines(term: Term, taken: Sequence[Summary | None]) -> Array:
    """The baseline of each conversation, NaN where there is none or the transform uses none."""
    if term.transform.needs is not Needs.BASELINE:
        return np.full(len(taken), np.nan)
    return np.array([np.nan if summary is None else summary.value for summary in taken], dtype=np.float64)


def _rows(term: Term, found: Sequence[Found | None], errors: Sequence[ServiceError | None]) -> Ragged | None:
    """The references of the conversations without an error."""
    if term.transform.needs is not Needs.REFERENCES or all(errors):
        return None
    return Ragged.of([one.rows for one, error in zip(found, errors, strict=True) if one is not None and error is None])


def _none(term: Term, n: int) -> Values:
    scale = term.transform.scale
    return Values(scale, np.full(n, np.nan), None if scale is Scale.REAL else np.full(n, np.nan))


def _transformed(term: Term, raw: Array, baseline: Array, rows: Ragged | None, good: Places) -> Values:
    """The term's numbers (n,), NaN for the conversations that are not `good`."""
    values, n = term.apply(raw[good], baseline[good], rows), len(raw)
    complement = None if values.complement is None else _spread(values.complement, good, n)
    return Values(values.scale, _spread(values.value, good, n), complement)


def not_finite(numbers: Array) -> list[int]:
    """Where in `numbers` (n,) there is NaN or an infinity."""
    return [i for i, finite in enumerate(np.isfinite(numbers).tolist()) if not finite]


def _spread(numbers: Array, good: Places, n: int) -> Array:
    if isinstance(good, slice):
        return numbers
    spread = np.full(n, np.nan)
    spread[good] = numbers
    return spread


def _raw_sources(estimates: Sequence[Estimate | ServiceError]) -> list[str | None]:
    """Where each raw score comes from: an item that was never rendered has the number of the configuration."""
    return [
        None if isinstance(estimate, ServiceError) else "model" if estimate.tokens else "on_unfinished"
        for estimate in estimates
    ]


def _no_number(term: Term, summary: Summary | None) -> ServiceError:
    """Why finite raw scores and references gave no finite number."""
    if term.transform.name != "standardize":
        return NotFinite(f"term {term.name!r}: {term.transform.name} of these numbers is too large to represent")
    count, std = (summary.count, summary.std) if summary else (0, None)
    return BaselineUnusable(
        f"term {term.name!r}: {term.transform.name} needs at least 2 references that differ; "
        f"this prompt has {count} with standard deviation {std}"
    )
