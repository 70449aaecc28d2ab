"""Prometheus metrics of one service; nothing global, so that two services in one process do not mix."""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from reward_service import __version__
from reward_service.telemetry.distributions import Distributions, Floats
from reward_service.telemetry.inventory import Inventory, Models, ModelState, Objectives
from reward_service.telemetry.times import Times

__all__ = ["Metrics", "ModelState"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS = tuple(2**power for power in range(5, 21))


class Metrics:
    """Every metric that the service exports."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._distributions = Distributions()
        self._inventory = Inventory()
        for collector in (self._distributions, self._inventory, ProcessCollector(registry=None)):
            self._registry.register(collector)
        self._of_requests()
        self._of_scores()
        self._of_batches()
        self._of_store()
        build = self._gauge("build_info", "What runs; always 1.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)

    def _of_requests(self) -> None:
        self.requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self._request = cache(self.requests.labels)  # `labels` takes longer than all else that is done with it
        self.request_seconds = self._times("request_seconds", "Time of a request, s.", "route", SECONDS)
        self.in_progress = self._gauge("requests_in_progress", "Requests that are being served.")
        self.stage_seconds = self._times(
            "stage_seconds", "Time of a request in one stage, summed over models, s.", "stage", STAGE_SECONDS
        )
        self.key_requests = self._counter("key_requests", "Requests by the name of the API key.", "key")
        self.retry_after_seconds = self._histogram(
            "retry_after_seconds", "Waits that callers without room were told, s.", SECONDS
        )
        self.errors = self._counter("errors", "Errors of requests and of single conversations, by code.", "code")

    def _of_scores(self) -> None:
        self.conversations = self._counter("conversations", "Conversations scored, by objective.", "objective")
        self.baselines = self._counter("baselines", "Baselines used, by source.", "source")
        self._conversations, self._baselines = cache(self.conversations.labels), cache(self.baselines.labels)
        self.cached_scores = self._counter("cached_scores", "Scores taken from the score cache.", "model")
        self.spelled_conversations = self._counter(
            "spelled_conversations", "Conversations that spell special tokens, read as plain text.", "model"
        )

    def _of_batches(self) -> None:
        self.batch_items = self._histogram("batch_items", "Items of a batch.", ITEMS, "model")
        self.batch_tokens = self._histogram("batch_tokens", "Tokens of a batch, without padding.", TOKENS, "model")
        self.computed_tokens = self._counter(
            "computed_tokens", "Tokens computed: with padding, shared prefixes once.", "model"
        )
        self.batch_seconds = self._histogram("batch_seconds", "Time of a batch on the device, s.", SECONDS, "model")
        self._queued = self._gauge("queued_tokens", "Tokens admitted and not yet computed.", "device")

    def _of_store(self) -> None:
        self.store_up = self._gauge("store_up", "Whether the last call to the store worked; NaN before the first.")
        self.store_up.set(math.nan)
        self.store_seconds = self._histogram(
            "store_seconds", "Time of a call to the store, s.", STAGE_SECONDS, "operation"
        )
        self._store_call = cache(self.store_seconds.labels)
        self.store_errors = self._counter("store_errors", "Calls to the store that failed.", "operation")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"reward_service_{name}", what, labels, registry=self._registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"reward_service_{name}", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"reward_service_{name}", what, labels, buckets=buckets, registry=self._registry)

    def _times(self, name: str, what: str, label: str, bounds: Sequence[float]) -> Times:
        times = Times(f"reward_service_{name}", what, label, bounds)
        self._registry.register(times)
        return times

    def watch_queue(self, device: str, queued_tokens: Callable[[], int]) -> None:
        """Read a device's queue whenever the metrics are read."""
        self._queued.labels(device).set_function(queued_tokens)

    def watch_catalog(self, models: Models, objectives: Objectives) -> None:
        """Read what is loaded whenever the metrics are read; `objectives` gives the hash of each by name."""
        self._inventory.models = models
        self._inventory.objectives = objectives

    def on_request(
        self, route: str, status: int, seconds: float, *, stages: Mapping[str, float], key: str | None
    ) -> None:
        """Note a request that was answered, and where its time went."""
        self._request(route, str(status)).inc()
        self.request_seconds.observe(route, seconds)
        for stage, taken in stages.items():
            self.stage_seconds.observe(stage, taken)
        if key is not None:
            self.key_requests.labels(key).inc()

    def on_scored(
        self, objective: str, conversations: int, *, errors: Mapping[str, int], sources: Mapping[str, int]
    ) -> None:
        """Note scored conversations: errors by code, and baselines by source."""
        self._conversations(objective).inc(conversations)
        for code, count in errors.items():
            self.errors.labels(code).inc(count)
        for source, count in sources.items():
            self._baselines(source).inc(count)

    def on_numbers(self, objective: str, terms: Sequence[str], numbers: Floats) -> None:
        """Count raw and transformed of each term in turn and then the reward: (2 * terms + 1, n)."""
        self._distributions.observe(objective, terms, numbers)

    def on_batch(self, model: str, *, items: int, tokens: int, computed_tokens: int, seconds: float) -> None:
        """Note a batch that has left the device."""
        self.batch_items.labels(model).observe(items)
        self.batch_tokens.labels(model).observe(tokens)
        self.computed_tokens.labels(model).inc(computed_tokens)
        self.batch_seconds.labels(model).observe(seconds)

    def on_cached(self, model: str, *, items: int) -> None:
        """Note items that were answered with kept scores."""
        self.cached_scores.labels(model).inc(items)

    def on_spelled(self, model: str) -> None:
        """Note a conversation whose special tokens were read as plain text."""
        self.spelled_conversations.labels(model).inc()

    def on_store(self, operation: str, seconds: float, *, worked: bool) -> None:
        """Note a call to the store."""
        self._store_call(operation).observe(seconds)
        self.store_up.set(worked)
        if not worked:
            self.store_errors.labels(operation).inc()

    def exposition(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return generate_latest(self._registry)
