"""Statistics of reference rewards: quantile, mean, std, share below, and the standard error of the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import NormalDist
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from reward_service.rewards.scales import Array

QuantileMethod = Literal["auto", "empirical", "normal", "mean"]

EMPIRICAL_FROM = 20
"""References from which `auto` trusts the empirical quantile; below, the normal approximation varies less."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """References of n conversations: `values` end to end, row i is values[offsets[i]:offsets[i + 1]], never empty.

    `values` has the units of the rewards; `offsets` has shape (n + 1,). Raises ValueError for an empty row.
    """

    values: Array
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        empty = np.flatnonzero(self.counts < 1)
        if empty.size:
            raise ValueError(f"conversation {empty[0]} has no references; each needs at least one")

    @classmethod
    def of(cls, rows: Sequence[Array]) -> Self:
        """The rows, one array of references a conversation, laid end to end; raises ValueError for an empty row."""
        offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0), *rows]), offsets)

    def __truediv__(self, temperature: float) -> "Ragged":
        """Every reference divided by the temperature."""
        return Ragged(self.values / temperature, self.offsets)

    @property
    def counts(self) -> NDArray[np.int64]:
        """References of each conversation, shape (n,)."""
        return np.diff(self.offsets)

    def spread(self, rewards: Array) -> Array:
        """One number a conversation, shape (n,), repeated beside each of its references, shape of `values`."""
        return np.repeat(rewards, self.counts)

    def total(self, numbers: Array) -> Array:
        """Sum over each conversation's references, shape (n,), of numbers of the shape of `values`."""
        return np.add.reduceat(numbers, self.offsets[:-1])


@dataclass(frozen=True, slots=True)
class Summary:
    """What a prompt's references say: the baseline (`value`), how it came about and how far it can be trusted.

    Rewards keep the model's raw units. `std` has ddof 1 and is None for one reference, as is `standard_error`, which is
    that of `value`; `quantile` is None for the mean; `method` is what was done, never "auto".
    """

    count: int
    mean: float
    std: float | None
    value: float
    quantile: float | None
    method: str
    standard_error: float | None


def summarise(rewards: Array, quantile: float, method: QuantileMethod) -> Summary:
    """The baseline of one prompt from its references, shape (m,), raw units (arXiv:2402.00742 uses the .85 quantile).

    Methods: the empirical quantile (linear interpolation, Hyndman and Fan 1996, type 7); the normal approximation
    mean + z std, with the error std sqrt(1 / m + z^2 / (2 (m - 1))) of the delta method; the mean, with std / sqrt(m).
    One reference is its own empirical quantile, whatever quantile method is asked. Raises ValueError for no references
    or a quantile outside (0, 1).
    """
    return summaries([rewards], quantile, method)[0]


def summaries(rows: Sequence[Array], quantile: float, method: QuantileMethod) -> list[Summary]:
    """`summarise` for many prompts, one row of references each: bit for bit as if each row were alone."""
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"quantile = {quantile}: it must lie between 0 and 1, both excluded")
    by_count: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_count.setdefault(len(row), []).append(place)
    taken: dict[int, Summary] = {}
    for places in by_count.values():
        table = np.array([rows[place] for place in places])
        taken.update(zip(places, _table_summaries(table, quantile, method), strict=True))
    return [taken[place] for place in range(len(rows))]


def _table_summaries(table: Array, quantile: float, method: QuantileMethod) -> list[Summary]:
    """The summaries of k prompts with m references each, shape (k, m)."""
    count = table.shape[1]
    if not count:
        raise ValueError("a prompt has no references; each needs at least one")
    means, stds = _table_moments(table)
    done = _resolved(method, count)
    if done == "mean":
        values, errors = means, stds / sqrt(count)
    elif done == "normal":
        z = NormalDist().inv_cdf(quantile)
        values, errors = means + z * stds, stds * sqrt(1.0 / count + z * z / (2.0 * (count - 1)))
    else:
        ordered = np.sort(table, axis=1)
        values, errors = _quantiles(ordered, quantile), _quantile_errors(ordered, quantile)
    asked = None if done == "mean" else quantile
    numbers = zip(means.tolist(), stds.tolist(), values.tolist(), errors.tolist(), strict=True)
    if count == 1:
        return [Summary(count, mean, None, value, asked, done, None) for mean, _, value, _ in numbers]
    return [Summary(count, mean, std, value, asked, done, error) for mean, std, value, error in numbers]


def quantile_error(rewards: Array, quantile: float) -> float:
    """Standard error, in the rewards' units, of the interpolated quantile of the references, shape (m,).

    sqrt(sum w_i (x_(i) - sum w x)^2), with w_i the mass of Beta(h, m + 1 - h) on [(i - 1) / m, i / m], where
    h = (m - 1) q + 1: the bootstrap's standard error in closed form, exact when h is whole (Maritz and Jarrett 1978,
    JASA 73:194), with fractional order statistics between (Stigler 1977, JASA 72:544). Deterministic.
    """
    return float(_quantile_errors(np.sort(rewards)[None], quantile)[0])


def _quantile_errors(ordered: Array, quantile: float) -> Array:
    """`quantile_error` of each row, shape (k,), of sorted references, shape (k, m)."""
    above_least = ordered - ordered[:, :1]
    weights = _order_weights(ordered.shape[1], quantile)
    deviation = above_least - (weights * above_least).sum(axis=1, keepdims=True)
    errors: Array = np.sqrt((weights * deviation**2).sum(axis=1))
    return errors


def _quantiles(ordered: Array, quantile: float) -> Array:
    """The interpolated quantile of each row, shape (k,), of sorted references, shape (k, m); bit for bit NumPy's."""
    place = (ordered.shape[1] - 1) * quantile
    low = int(place)
    below, above, share = ordered[:, low], ordered[:, min(low + 1, ordered.shape[1] - 1)], place - low
    step = above - below
    between: Array = above - step * (1.0 - share) if share >= 0.5 else below + step * share
    return np.where(np.isnan(ordered[:, -1]), np.nan, between)


def _table_moments(table: Array) -> tuple[Array, Array]:
    """`moments` of k prompts with m references each, shape (k, m)."""
    first, count = table[:, 0], table.shape[1]
    shifted = table - first[:, None]
    shift = shifted.sum(axis=1) / count
    if count == 1:
        return first + shift, np.full_like(first, np.nan)
    with np.errstate(invalid="ignore"):  # an infinite reference has no std: NaN, without a warning
        squares = ((shifted - shift[:, None]) ** 2).sum(axis=1)
    return first + shift, np.sqrt(squares / (count - 1))


def moments(references: Ragged) -> tuple[Array, Array]:
    """Mean and std (ddof 1) of each conversation's references, shapes (n,), their units; std is NaN for one reference.

    Taken about the first reference of the row: equal references have a std of exactly 0, whatever their size.
    """
    first = references.values[references.offsets[:-1]]
    shifted = references.values - references.spread(first)
    shift = references.total(shifted) / references.counts
    with np.errstate(invalid="ignore"):  # an infinite reference has no std: NaN, without a warning
        squares = references.total((shifted - references.spread(shift)) ** 2)
    several = references.counts > 1
    variance = np.full_like(first, np.nan)
    np.divide(squares, references.counts - 1, out=variance, where=several)
    return first + shift, np.sqrt(variance)


def share_below(raw: Array, references: Ragged) -> Array:
    """(below + half the ties) / count: mid-rank of each reward, shape (n,), among its references; in [0, 1].

    The calibrated reward of InfAlign (arXiv:2412.19792). NaN among the reward or its references gives NaN.
    """
    return references.total(np.heaviside(references.spread(raw) - references.values, 0.5)) / references.counts


def _resolved(method: QuantileMethod, count: int) -> str:
    if method == "mean":
        return "mean"
    if count == 1:
        return "empirical"
    if method == "auto":
        return "empirical" if count >= EMPIRICAL_FROM else "normal"
    return method


@lru_cache(maxsize=256)
def _order_weights(count: int, quantile: float) -> Array:
    """Mass of Beta(h, m + 1 - h) on each of the m cells of [0, 1], by Gauss-Legendre quadrature in every cell."""
    h = (count - 1) * quantile + 1.0
    nodes, node_weights = np.polynomial.legendre.leggauss(16)
    p = (np.arange(count)[:, None] + (nodes + 1.0) / 2.0) / count
    log_density = (h - 1.0) * np.log(p) + (count - h) * np.log1p(-p)
    mass = np.exp(log_density - log_density.max()) @ node_weights
    weights: Array = mass / mass.sum()
    weights.flags.writeable = False
    return weights
