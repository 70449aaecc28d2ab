"""What margins r_chosen - r_rejected say: accuracy, its interval, and the temperature that makes them log-odds."""

import math

import numpy as np
from numpy.typing import NDArray

Margins = NDArray[np.float64]

LOG_TEMPERATURE_RANGE = (-12.0, 12.0)
BISECTIONS = 80


def accuracy(margins: Margins) -> float:
    """Share of pairs whose chosen response scores higher; a tie counts one half."""
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def wilson_interval(share: float, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval (1927) of a share of `count` pairs; `z` 1.96 makes it 95 %."""
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return center - half, center + half


def negative_log_likelihood(margins: Margins, temperature: float) -> float:
    """Mean of -log sigmoid((r_c - r_r) / T) in nats."""
    return float(np.mean(np.logaddexp(0.0, -margins / temperature)))


def fit_temperature(margins: Margins) -> float:
    """The T > 0 that minimises the negative log-likelihood (arXiv:1706.04599, for pairs).

    The likelihood is concave in b = 1/T, so its slope mean(m sigmoid(-b m)) has one root: bisection over log b.
    Margins that are right in the mean but not all right have a finite T; others raise ValueError.
    """
    if not np.mean(margins) > 0 or not np.any(margins < 0):
        raise ValueError("no finite temperature: the margins must be right on average, and wrong for some pair")
    low, high = LOG_TEMPERATURE_RANGE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(margins, math.exp(middle)) > 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def _slope(margins: Margins, inverse_temperature: float) -> float:
    """Derivative of the mean log-likelihood in 1/T: mean of m sigmoid(-m / T)."""
    return float(np.mean(margins * np.exp(-np.logaddexp(0.0, inverse_temperature * margins))))
