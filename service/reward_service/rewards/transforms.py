"""Transforms: from rewards r, a baseline b or references r_m, all divided by the temperature, to typed values.

Each is a pure function over n conversations: r and b have shape (n,), the references are one row a conversation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import TypeVar

import numpy as np

from reward_service.rewards.references import Ragged, moments
from reward_service.rewards.scales import Array, Scale, Values

NOISE = 1e-6
"""Spread of float32 scores that are equal but for rounding, relative to their size."""
Rewards = TypeVar("Rewards", Array, Ragged)


def calibrate(rewards: Rewards, temperature: float) -> Rewards:
    """Rewards / T: raw, baseline or references in the model's raw units, to logits (Guo et al. 2017, arXiv:1706.04599).

    The shape stays; divide all three alike. Raises ValueError unless the temperature is finite and above 0.
    """
    if not (isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"temperature = {temperature}: it must be a finite number above 0")
    return rewards / temperature


def identity(r: Array) -> Values:
    """The reward r itself, shape (n,), any real, logits (Bradley and Terry 1952, Biometrika 39:324)."""
    return Values(Scale.REAL, r, None)


def centered(r: Array, b: Array) -> Values:
    """r - b, shapes (n,), any real, logits: the margin over the baseline (arXiv:2402.00742)."""
    return Values(Scale.REAL, r - b, None)


def log_sigmoid_centered(r: Array, b: Array) -> Values:
    """log P(response beats the baseline) = log sigmoid(r - b), shapes (n,), nats, <= 0 (arXiv:2402.00742, u_LSC)."""
    return Values(Scale.LOG_PROBABILITY, *_log_sigmoids(r - b))


def log_sigmoid(r: Array) -> Values:
    """log sigmoid(r), shape (n,), nats, <= 0: for rewards calibrated at 0, as in safe-or-not (arXiv:2402.00742)."""
    return Values(Scale.LOG_PROBABILITY, *_log_sigmoids(r))


def sigmoid_centered(r: Array, b: Array) -> Values:
    """P(the response beats the baseline) = sigmoid(r - b), shapes (n,), in [0, 1] (Bradley and Terry 1952)."""
    return Values(Scale.PROBABILITY, _sigmoid(r - b), _sigmoid(b - r))


def par(r: Array, references: Ragged) -> Values:
    """Mean over m of sigmoid(r - r_m): the chance to beat a reference, shape (n,), in [0, 1] (arXiv:2502.18770)."""
    margin = references.spread(r) - references.values
    return Values(
        Scale.PROBABILITY,
        references.total(_sigmoid(margin)) / references.counts,
        references.total(_sigmoid(-margin)) / references.counts,
    )


def win_rate(r: Array, references: Ragged) -> Values:
    """(below + half the ties + 0.5) / (m + 1): smoothed mid-rank, shape (n,), inside (0, 1) (arXiv:2412.19792).

    Unchanged by any increasing distortion of the reward. NaN among the reward or its references gives NaN.
    """
    return Values(Scale.PROBABILITY, *_smoothed_ranks(r, references))


def log_win_rate(r: Array, references: Ragged) -> Values:
    """log win_rate, shape (n,), nats, <= 0: best-of-n is the tilt by (n - 1) log CDF (arXiv:2401.01879, 2412.19792)."""
    wins, losses = _smoothed_ranks(r, references)
    return Values(Scale.LOG_PROBABILITY, np.log(wins), np.log(losses))


def standardize(r: Array, references: Ragged) -> Values:
    """(r - mean) / std (ddof 1) of the references, shape (n,), real, in stds (Ziegler et al. 2019, arXiv:1909.08593).

    NaN where there are fewer than 2 references, or where their std is not finite or no more than rounding noise: the
    caller makes it that item's error.
    """
    means, stds = moments(references)
    value = np.full_like(r, np.nan)
    np.divide(r - means, stds, out=value, where=np.isfinite(stds) & (stds > NOISE * np.maximum(1.0, np.abs(means))))
    return Values(Scale.REAL, value, None)


class Needs(StrEnum):
    """What a transform reads beside the reward."""

    NOTHING = "nothing"
    BASELINE = "baseline"
    REFERENCES = "references"


Apply = Callable[[Array, Array | None, Ragged | None], Values]


@dataclass(frozen=True, slots=True)
class Transform:
    """A transform by name: the scale it yields, what it needs, and `apply(r, baseline, references)`, all calibrated.

    `apply` reads only what it needs, the rest may be None; without what it needs it raises ValueError.
    """

    name: str
    scale: Scale
    needs: Needs
    apply: Apply


def _log_sigmoids(x: Array) -> tuple[Array, Array]:
    """-log(1 + e^-x), and the same of -x; not np.logaddexp, which warns of NaN."""
    tail = np.log1p(np.exp(-np.abs(x)))
    return np.minimum(x, 0.0) - tail, np.minimum(-x, 0.0) - tail


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, small) / (1.0 + small)


def _smoothed_ranks(r: Array, references: Ragged) -> tuple[Array, Array]:
    """Smoothed shares of references below and above; heaviside of 0 is one half, a tie."""
    margin = references.spread(r) - references.values
    below = references.total(np.heaviside(margin, 0.5))
    above = references.total(np.heaviside(-margin, 0.5))
    return (below + 0.5) / (references.counts + 1), (above + 0.5) / (references.counts + 1)


def _from_reward(formula: Callable[[Array], Values]) -> Apply:
    return lambda r, _baseline, _references: formula(r)


def _from_baseline(formula: Callable[[Array, Array], Values]) -> Apply:
    def apply(r: Array, baseline: Array | None, _references: Ragged | None) -> Values:
        if baseline is None:
            raise ValueError("this transform needs a baseline")
        return formula(r, baseline)

    return apply


def _from_references(formula: Callable[[Array, Ragged], Values]) -> Apply:
    def apply(r: Array, _baseline: Array | None, references: Ragged | None) -> Values:
        if references is None:
            raise ValueError("this transform needs references")
        return formula(r, references)

    return apply


TRANSFORMS: dict[str, Transform] = {
    transform.name: transform
    for transform in (
        Transform("identity", Scale.REAL, Needs.NOTHING, _from_reward(identity)),
        Transform("centered", Scale.REAL, Needs.BASELINE, _from_baseline(centered)),
        Transform("log_sigmoid_centered", Scale.LOG_PROBABILITY, Needs.BASELINE, _from_baseline(log_sigmoid_centered)),
        Transform("log_sigmoid", Scale.LOG_PROBABILITY, Needs.NOTHING, _from_reward(log_sigmoid)),
        Transform("sigmoid_centered", Scale.PROBABILITY, Needs.BASELINE, _from_baseline(sigmoid_centered)),
        Transform("par", Scale.PROBABILITY, Needs.REFERENCES, _from_references(par)),
        Transform("win_rate", Scale.PROBABILITY, Needs.REFERENCES, _from_references(win_rate)),
        Transform("log_win_rate", Scale.LOG_PROBABILITY, Needs.REFERENCES, _from_references(log_win_rate)),
        Transform("standardize", Scale.REAL, Needs.REFERENCES, _from_references(standardize)),
    )
}
