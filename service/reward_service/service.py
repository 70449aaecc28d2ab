"""The parts of one running service, put together from its configuration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from reward_service.baselines import Baselines
from reward_service.catalog import Catalog, Model, build_catalog
from reward_service.config import Config
from reward_service.engine.devices import Devices
from reward_service.engine.score_cache import ScoreCache
from reward_service.errors import NotReady, ServiceError
from reward_service.objectives import ObjectiveCatalog
from reward_service.reloading import Reloads
from reward_service.schemas import Readiness
from reward_service.scoring import Scoring, StoredReferences
from reward_service.stores import MemoryStore, ObservedStore, Store, open_store
from reward_service.submissions import Submissions
from reward_service.telemetry import Metrics, ModelState, Traces, open_traces

PING_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Service:
    """A started service: models loaded, store open, objectives valid."""

    config: Config
    metrics: Metrics
    catalog: Catalog
    objectives: ObjectiveCatalog
    store: Store
    baselines: Baselines
    scoring: Scoring
    references: StoredReferences
    reloads: Reloads
    submissions: Submissions
    traces: Traces | None = None

    async def readiness(self) -> Readiness:
        """What works: raw scoring decides; a failed store is named only."""
        models = {model.name: model.engine.failure or "ready" for model in self.catalog}
        ready = all(state == "ready" for state in models.values())
        return Readiness(status="ready" if ready else "not_ready", models=models, store=await self._store_state())

    async def _store_state(self) -> str:
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self.store.ping()
        except ServiceError as error:
            return error.detail
        except TimeoutError:
            return f"no answer within {PING_TIMEOUT_S:g} s"
        return "ready"


def assemble(config: Config, catalog: Catalog, store: Store, metrics: Metrics, traces: Traces | None = None) -> Service:
    """A service from started parts; ConfigError when an objective asks for a label that its model does not have."""
    objectives = ObjectiveCatalog(config, catalog.models)
    baselines = Baselines(store, canned_ttl_s=config.store.canned_ttl_s)
    metrics.watch_catalog(partial(_states, catalog), partial(_hashes, objectives))
    return Service(
        config=config,
        metrics=metrics,
        catalog=catalog,
        objectives=objectives,
        store=store,
        baselines=baselines,
        scoring=Scoring(catalog, objectives, baselines, config.limits, metrics),
        references=StoredReferences(catalog, baselines, config.limits),
        reloads=Reloads(catalog, objectives),
        submissions=Submissions(store),
        traces=traces,
    )


def _states(catalog: Catalog) -> list[ModelState]:
    """The models as the metrics show them."""
    return [_state(model) for model in catalog]


def _state(model: Model) -> ModelState:
    try:
        card = model.card
    except NotReady:
        return ModelState(model.name, works=False, labels=None)
    labels = (card.engine, card.device, card.dtype, card.fingerprint.value, card.fingerprint.kind)
    return ModelState(model.name, works=model.engine.failure is None, labels=labels)


def _hashes(objectives: ObjectiveCatalog) -> dict[str, str]:
    return {card.name: card.objective_hash for card in objectives.cards().objectives}


def score_cache(config: Config, store: Store, metrics: Metrics) -> ScoreCache | None:
    """The kept scores that a configuration asks for; a store in this process would hold them twice and no longer."""
    if not config.score_cache.enabled:
        return None
    behind = None if isinstance(store, MemoryStore) else ObservedStore(store, metrics)
    return ScoreCache(config.score_cache, behind, observer=metrics)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Service]:
    """A service from its start to its graceful end; ConfigError, NotReady or StoreUnavailable say what hinders it."""
    metrics, traces = Metrics(), open_traces(config.telemetry.otlp_endpoint)
    opened = open_store(config.store.url, timeout_s=config.store.timeout_s)
    store, scores = ObservedStore(opened, metrics), score_cache(config, opened, metrics)
    devices = Devices(max_queued_tokens=config.limits.max_queued_tokens, observer=metrics, scores=scores)
    catalog = build_catalog(config, devices)
    try:
        await store.ping()
        await catalog.start()
        for device in devices.queues:
            metrics.watch_queue(device.name, partial(getattr, device, "queued_tokens"))
        service = assemble(config, catalog, store, metrics, traces)
        try:
            yield service
        finally:
            await service.submissions.close()
            await service.reloads.close()
    finally:
        await catalog.close()
        await devices.close()
        if scores is not None:
            await scores.close()
        await store.close()
        if traces is not None:
            await asyncio.to_thread(traces.close)
