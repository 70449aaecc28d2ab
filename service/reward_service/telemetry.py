"""Prometheus metrics of one service; nothing global, so that two services in one process do not mix."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS = tuple(2**power for power in range(5, 21))


class Metrics:
    """Every metric that the service exports."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "reward_service_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "reward_service_request_seconds", "Time of a request, s.", ["route"], buckets=SECONDS, registry=registry
        )
        self.conversations = Counter(
            "reward_service_conversations", "Conversations scored, by objective.", ["objective"], registry=registry
        )
        self.errors = Counter(
            "reward_service_errors",
            "Errors of requests and of single conversations, by code.",
            ["code"],
            registry=registry,
        )
        self.baselines = Counter(
            "reward_service_baselines", "Baselines used, by source.", ["source"], registry=registry
        )
        self.cached_scores = Counter(
            "reward_service_cached_scores", "Scores taken from the score cache.", ["model"], registry=registry
        )
        self.batch_items = Histogram(
            "reward_service_batch_items", "Items of a batch.", ["model"], buckets=ITEMS, registry=registry
        )
        self.batch_tokens = Histogram(
            "reward_service_batch_tokens",
            "Tokens of a batch, without padding.",
            ["model"],
            buckets=TOKENS,
            registry=registry,
        )
        self.computed_tokens = Counter(
            "reward_service_computed_tokens",
            "Tokens computed: with padding, shared prefixes once.",
            ["model"],
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "reward_service_batch_seconds",
            "Time of a batch on the device, s.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._queued = Gauge(
            "reward_service_queued_tokens", "Tokens admitted and not yet computed.", ["device"], registry=registry
        )

    def watch_queue(self, device: str, queued_tokens: Callable[[], int]) -> None:
        """Read a device's queue whenever the metrics are read."""
        self._queued.labels(device).set_function(queued_tokens)

    def on_batch(self, model: str, *, items: int, tokens: int, computed_tokens: int, seconds: float) -> None:
        """Note a batch that has left the device."""
        self.batch_items.labels(model).observe(items)
        self.batch_tokens.labels(model).observe(tokens)
        self.computed_tokens.labels(model).inc(computed_tokens)
        self.batch_seconds.labels(model).observe(seconds)

    def on_cached(self, model: str, *, items: int) -> None:
        """Note items that were answered with kept scores."""
        self.cached_scores.labels(model).inc(items)

    def exposition(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return generate_latest(self._registry)
