"""Histograms of times by one label, for what is noted many times per request: a fraction of a microsecond each."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Times(Collector):
    """Times in seconds by the value of one label. Used from one event loop: it takes no lock."""

    def __init__(self, name: str, what: str, label: str, bounds: Sequence[float]) -> None:
        self._name, self._what, self._label = name, what, label
        self._bounds = tuple(map(float, bounds))
        self._places = (*map(str, self._bounds), "+Inf")
        self._series: dict[str, _Series] = {}

    def observe(self, value: str, seconds: float) -> None:
        """Note a time for a value of the label."""
        series = self._series.get(value)
        if series is None:
            series = self._series[value] = _Series([0] * len(self._places))
        series.counts[bisect_left(self._bounds, seconds)] += 1
        series.sum += seconds

    def collect(self) -> Iterable[Metric]:
        """The metric as it stands."""
        metric = Metric(self._name, self._what, "histogram")
        for value, series in self._series.items():
            labels = {self._label: value}
            for place, count in zip(self._places, accumulate(series.counts), strict=True):
                metric.add_sample(f"{self._name}_bucket", {**labels, "le": place}, count)
            metric.add_sample(f"{self._name}_count", labels, sum(series.counts))
            metric.add_sample(f"{self._name}_sum", labels, series.sum)
        return (metric,)


@dataclass(slots=True)
class _Series:
    counts: list[int]
    sum: float = 0.0
