"""Typed scales: what a number means, and its complement carried beside it so that NOT is an exact swap."""

from dataclasses import dataclass
from enum import StrEnum
from math import isnan, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Scale(StrEnum):
    """What a transformed number is: a reward, a probability p, or log p in nats."""

    REAL = "real"
    PROBABILITY = "probability"
    LOG_PROBABILITY = "log_probability"


@dataclass(frozen=True, slots=True)
class Values:
    """One term's numbers for n conversations.

    `value` has shape (n,): the reward, p or log p (nats). `complement` has the same shape: 1 - p beside p, log(1 - p)
    beside log p, and None on the real scale, where nothing is lost by negating.
    """

    scale: Scale
    value: Array
    complement: Array | None


def log1mexp(log_p: Array) -> Array:
    """log(1 - e^x) for x = log p < 0, any shape, nats; exact at both ends (Maechler 2012, Rmpfr vignette, eq. 7)."""
    near_one = np.log(-np.expm1(np.maximum(log_p, -log(2.0))))
    far_below = np.log1p(-np.exp(np.minimum(log_p, -log(2.0))))
    return np.where(log_p > -log(2.0), near_one, far_below)


def negate(values: Values) -> Values:
    """NOT: -x on the real scale, else p and 1 - p swap (arXiv:2402.00742); same shape (n,) and units; an involution."""
    if values.complement is None:
        return Values(values.scale, -values.value, None)
    return Values(values.scale, values.complement, values.value)


def clip(values: Values, low: float, high: float) -> Values:
    """min(max(x, low), high), shape (n,), bounds in the units of the scale and valid by `check_clip`.

    Where the bounds do not bite, value and complement stay bit for bit; where they do, the complement is the bound's.
    """
    value = np.clip(values.value, low, high)
    if values.complement is None:
        return Values(values.scale, value, None)
    bitten = (values.value < low) | (values.value > high)
    complement = values.complement.copy()
    complement[bitten] = _complement_of(values.scale, value[bitten])
    return Values(values.scale, value, complement)


def check_clip(scale: Scale, low: float, high: float) -> None:
    """Raise ValueError, with a sentence for the user, if [low, high] is no clip on this scale; inf means no bound."""
    if isnan(low) or isnan(high) or low >= high:
        raise ValueError(f"clip = [{low}, {high}]: the first bound must be less than the second")
    if scale is Scale.LOG_PROBABILITY and (low >= 0.0 or high > 0.0):
        raise ValueError(f"clip = [{low}, {high}]: a log-probability lies below 0, e.g. clip = [-30.0, 0.0]")
    if scale is Scale.PROBABILITY and (low < 0.0 or high > 1.0):
        raise ValueError(f"clip = [{low}, {high}]: a probability lies in [0, 1], e.g. clip = [0.01, 0.99]")


def _complement_of(scale: Scale, value: Array) -> Array:
    return log1mexp(value) if scale is Scale.LOG_PROBABILITY else 1.0 - value
