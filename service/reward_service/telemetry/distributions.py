"""Histograms of raw, transformed and reward: the numbers of many requests counted at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Floats = NDArray[np.float64]

BOUNDS = (
    *(-50.0, -20.0, -10.0, -5.0, -3.0, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, -0.1, 0.0),
    *(0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0),
)
"""For logits, log-probabilities and probabilities alike."""
_BOUNDS = np.array(BOUNDS)
_LABELS = (*map(str, BOUNDS), "+Inf")
COUNTED_AT_ONCE = 1024
"""Conversations: to count those of a single one takes hardly less time."""


class Distributions(Collector):
    """What every objective gave: a histogram for raw and transformed of each term, and for the reward.

    There is no `_sum`: it would fall with negative numbers, which Prometheus takes for a restart.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, tuple[str, ...]], _Counts] = {}

    def observe(self, objective: str, terms: Sequence[str], numbers: Floats) -> None:
        """Count `numbers` (2 * terms + 1, n): raw and transformed of each term in turn, then the reward.

        What is not finite is no number and is not counted.
        """
        key = (objective, tuple(terms))
        if key not in self._counts:
            self._counts[key] = _Counts(len(numbers))
        self._counts[key].add(numbers)

    def collect(self) -> Iterable[Metric]:
        """The three metrics as they stand."""
        raw = Metric("reward_service_raw", "Raw scores, by term.", "histogram")
        transformed = Metric("reward_service_transformed", "Transformed scores, by term.", "histogram")
        reward = Metric("reward_service_reward", "Rewards, by objective.", "histogram")
        for (objective, terms), counts in self._counts.items():
            rows = counts.cumulative()
            for term in terms:
                labels = {"objective": objective, "term": term}
                _add(raw, labels, next(rows))
                _add(transformed, labels, next(rows))
            _add(reward, {"objective": objective}, next(rows))
        return raw, transformed, reward


class _Counts:
    """The counts (k, bounds + 1) of k histograms. Used from one event loop."""

    def __init__(self, histograms: int) -> None:
        self._shape = (histograms, len(BOUNDS) + 2)  # the last place is for what is no number
        self._counts = np.zeros(self._shape, dtype=np.int64)
        self._starts = (np.arange(histograms) * self._shape[1])[:, np.newaxis]
        self._waiting: list[Floats] = []
        self._conversations_waiting = 0

    def add(self, numbers: Floats) -> None:
        self._waiting.append(numbers)
        self._conversations_waiting += numbers.shape[1]
        if self._conversations_waiting >= COUNTED_AT_ONCE:
            self._count()

    def _count(self) -> None:
        numbers = np.concatenate([np.empty((self._shape[0], 0)), *self._waiting], axis=1)
        self._waiting, self._conversations_waiting = [], 0
        places = np.searchsorted(_BOUNDS, numbers)
        places[~np.isfinite(numbers)] = self._shape[1] - 1
        flat = (places + self._starts).ravel()
        self._counts += np.bincount(flat, minlength=self._counts.size).reshape(self._shape)

    def cumulative(self) -> Iterator[list[int]]:
        self._count()
        return iter(np.cumsum(self._counts[:, :-1], axis=1).tolist())


def _add(metric: Metric, labels: Mapping[str, str], cumulative: Sequence[int]) -> None:
    for bound, count in zip(_LABELS, cumulative, strict=True):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
    metric.add_sample(f"{metric.name}_count", dict(labels), cumulative[-1])
