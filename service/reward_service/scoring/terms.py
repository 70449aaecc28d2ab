"""One term over all conversations of a request: raw scores and references in, transformed numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_service.config import StoredBaseline
from reward_service.engine.engine import Estimate
from reward_service.errors import BaselineUnusable, NotFinite, ServiceError
from reward_service.objectives import Term
from reward_service.rewards.references import Ragged, Summary, share_below, summarise
from reward_service.rewards.scales import Array, Scale, Values
from reward_service.rewards.transforms import Needs
from reward_service.scoring.referring import Found

Places = NDArray[np.int64]
DEFAULT_QUANTILE = 0.85


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
    share_below: Array
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
    summaries = _summaries(term, usable)
    baseline = _baselines(term, summaries)
    good = np.array([i for i, error in enumerate(errors) if error is None], dtype=np.int64)
    rows = _rows(term, usable, good)
    values = _transformed(term, raw, baseline, rows, good)
    below = _spread(share_below(raw[good], rows), good, n) if rows is not None else np.full(n, np.nan)
    for i in good[~np.isfinite(values.value[good])]:
        errors[i] = _no_number(term, summaries[i])
    return Evaluated(values, raw, std, _raw_sources(estimates), baseline, below, usable, summaries, errors)


def _first_error(estimate: Estimate | ServiceError, found: Found | ServiceError | None) -> ServiceError | None:
    if isinstance(estimate, ServiceError):
        return estimate
    return found if isinstance(found, ServiceError) else None


def _raw(term: Term, estimates: Sequence[Estimate | ServiceError]) -> tuple[Array, Array]:
    raw, std = np.full((2, len(estimates)), np.nan)
    for i, estimate in enumerate(estimates):
        if not isinstance(estimate, ServiceError):
            raw[i] = estimate.outputs[term.output]
            std[i] = _std(estimate, term.output)
    return raw, std


def _std(estimate: Estimate, output: int) -> float:
    if estimate.variance is None:
        return float("nan")
    variance = estimate.variance if estimate.variance.ndim == 1 else np.diagonal(estimate.variance)
    return float(np.sqrt(variance[output]))


def _summaries(term: Term, found: Sequence[Found | None]) -> list[Summary | None]:
    """The statistics of each conversation's references, taken once for equal references."""
    stored = term.baseline if isinstance(term.baseline, StoredBaseline) else None
    quantile, method = (stored.quantile, stored.method) if stored else (DEFAULT_QUANTILE, "auto")
    if term.transform.needs is Needs.REFERENCES:
        method = "mean"
    taken: dict[object, Summary] = {}
    for reference in found:
        if reference is not None and reference.identity not in taken:
            taken[reference.identity] = summarise(reference.rows, quantile, method)
    return [None if reference is None else taken[reference.identity] for reference in found]


def _baselines(term: Term, summaries: Sequence[Summary | None]) -> Array:
    """The baseline of each conversation, NaN where there is none or the transform uses none."""
    if term.transform.needs is not Needs.BASELINE:
        return np.full(len(summaries), np.nan)
    return np.array([np.nan if summary is None else summary.value for summary in summaries], dtype=np.float64)


def _rows(term: Term, found: Sequence[Found | None], good: Places) -> Ragged | None:
    if term.transform.needs is not Needs.REFERENCES or not len(good):
        return None
    return Ragged.of([reference.rows for reference in (found[i] for i in good) if reference is not None])


def _transformed(term: Term, raw: Array, baseline: Array, rows: Ragged | None, good: Places) -> Values:
    """The term's numbers (n,), NaN for the conversations that are not `good`."""
    n, scale = len(raw), term.transform.scale
    if not len(good):
        return Values(scale, np.full(n, np.nan), None if scale is Scale.REAL else np.full(n, np.nan))
    values = term.apply(raw[good], baseline[good], rows)
    complement = None if values.complement is None else _spread(values.complement, good, n)
    return Values(values.scale, _spread(values.value, good, n), complement)


def _spread(numbers: Array, good: Places, n: int) -> Array:
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
