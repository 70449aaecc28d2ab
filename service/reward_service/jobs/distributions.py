"""The distribution of any number of values in fixed memory: exact moments, and quantiles by a merging t-digest."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
COMPRESSION = 1000
BUFFER = 10_000
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 40


class Distribution:
    """Count, mean, standard deviation, smallest and largest exactly; quantiles exactly up to 10,000 values.

    Beyond that they come from a t-digest (arXiv:1902.04023, scale function k1): about a thousand means of neighbouring
    values, finest at both ends, whose ranks are off by less than a thousandth.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.smallest, self.largest = np.inf, -np.inf
        self._squares = 0.0
        self._means: Array = np.empty(0)
        self._weights: Array = np.empty(0)

    def add(self, values: Array) -> None:
        """Take more values (n,), all finite."""
        if not len(values):
            return
        count, mean = len(values), float(values.mean())
        total, step = self.count + count, mean - self.mean
        self._squares += float(((values - mean) ** 2).sum()) + step**2 * self.count * count / total
        self.mean += step * count / total
        self.count = total
        self.smallest, self.largest = min(self.smallest, float(values.min())), max(self.largest, float(values.max()))
        self._means = np.concatenate([self._means, values])
        self._weights = np.concatenate([self._weights, np.ones(count)])
        if len(self._means) > BUFFER:
            self._compress()

    @property
    def std(self) -> float | None:
        """The sample's standard deviation; None under two values."""
        return None if self.count < 2 else float(np.sqrt(self._squares / (self.count - 1)))

    def quantile(self, share: float) -> float:
        """The value with so large a share below it, interpolated; there must be values."""
        self._sort()
        return float(np.interp(share * self.count, self._middles(), self._means))

    def histogram(self) -> tuple[Array, Array]:
        """Edges (41,) and the numbers of values between them (40,), of the middle 99.8 %; of equal values one bin."""
        low, high = (self.quantile(share) for share in (0.001, 0.999))
        edges = np.linspace(low, high, BINS + 1) if high > low else np.array([low, low])
        if len(edges) == 2:
            return edges, np.array([float(self.count)])
        below = np.interp(edges, self._means, self._middles(), left=0.0, right=float(self.count))
        return edges, np.diff(below)

    def summary(self) -> dict[str, Any]:
        """The numbers as they stand in a summary."""
        if not self.count:
            return {"count": 0}
        quantiles = {f"p{100 * share:g}": self.quantile(share) for share in QUANTILES}
        ends = {"min": self.smallest, "max": self.largest}
        return {"count": self.count, "mean": self.mean, "std": self.std, **ends, **quantiles}

    def _middles(self) -> Array:
        return np.cumsum(self._weights) - self._weights / 2

    def _sort(self) -> None:
        order = np.argsort(self._means, kind="stable")
        self._means, self._weights = self._means[order], self._weights[order]

    def _compress(self) -> None:
        """Join neighbours whose k1 falls into the same unit: arcsin widens the scale at both ends."""
        self._sort()
        k = np.floor(COMPRESSION * (np.arcsin(2 * self._middles() / self.count - 1) / np.pi + 0.5))
        starts = np.flatnonzero(np.diff(k, prepend=-1.0))
        weights = np.add.reduceat(self._weights, starts)
        self._means = np.add.reduceat(self._weights * self._means, starts) / weights
        self._weights = weights
