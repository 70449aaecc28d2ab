"""What is loaded, read anew at each scrape: a reloaded model is seen at once, and one that is gone no more."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MODEL_LABELS = ("model", "engine", "device", "dtype", "fingerprint", "fingerprint_kind")


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model as a dashboard shows it; `labels` (those of MODEL_LABELS but the first) is None before it is loaded."""

    name: str
    works: bool
    labels: tuple[str, ...] | None


Models = Callable[[], Iterable[ModelState]]
Objectives = Callable[[], Mapping[str, str]]


class Inventory(Collector):
    """Models with their fingerprints, objectives with their hashes."""

    def __init__(self) -> None:
        self.models: Models = tuple
        self.objectives: Objectives = dict

    def collect(self) -> Iterable[Metric]:
        """The metrics as they stand."""
        info = GaugeMetricFamily("reward_service_model_info", "The models that answer; always 1.", labels=MODEL_LABELS)
        works = GaugeMetricFamily("reward_service_model_up", "Whether a model gives scores now.", labels=["model"])
        for model in self.models():
            works.add_metric([model.name], float(model.works))
            if model.labels is not None:
                info.add_metric([model.name, *model.labels], 1.0)
        labels = ["objective", "objective_hash"]
        recipes = GaugeMetricFamily("reward_service_objective_info", "The objectives; always 1.", labels=labels)
        for name, digest in self.objectives().items():
            recipes.add_metric([name, digest], 1.0)
        return info, works, recipes
