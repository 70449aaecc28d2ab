"""The parts of one running service, put together from its configuration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from reward_service.baselines import Baselines
from reward_service.catalog import Catalog, build_catalog
from reward_service.config import Config
from reward_service.engine.devices import Devices
from reward_service.engine.score_cache import ScoreCache
from reward_service.errors import ServiceError
from reward_service.objectives import ObjectiveCatalog, build_objectives
from reward_service.schemas import Readiness
from reward_service.scoring import Scoring, StoredReferences
from reward_service.stores import MemoryStore, Store, open_store
from reward_service.telemetry import Metrics

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


def assemble(config: Config, catalog: Catalog, store: Store, metrics: Metrics) -> Service:
    """A service from started parts; ConfigError when an objective asks for a label that its model does not have."""
    objectives = build_objectives(config, catalog)
    baselines = Baselines(store)
    return Service(
        config=config,
        metrics=metrics,
        catalog=catalog,
        objectives=objectives,
        store=store,
        baselines=baselines,
        scoring=Scoring(catalog, objectives, baselines, config.limits, metrics),
        references=StoredReferences(catalog, baselines, config.limits),
    )


def score_cache(config: Config, store: Store, metrics: Metrics) -> ScoreCache | None:
    """The kept scores that a configuration asks for; a store in this process would hold them twice and no longer."""
    if not config.score_cache.enabled:
        return None
    behind = None if isinstance(store, MemoryStore) else store
    return ScoreCache(config.score_cache, behind, observer=metrics)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Service]:
    """A service from its start to its graceful end; ConfigError, NotReady or StoreUnavailable say what hinders it."""
    metrics = Metrics()
    store = open_store(config.store.url)
    scores = score_cache(config, store, metrics)
    devices = Devices(max_queued_tokens=config.limits.max_queued_tokens, observer=metrics, scores=scores)
    catalog = build_catalog(config, devices)
    try:
        await store.ping()
        await catalog.start()
        for device in devices.queues:
            metrics.watch_queue(device.name, partial(getattr, device, "queued_tokens"))
        yield assemble(config, catalog, store, metrics)
    finally:
        await catalog.close()
        await devices.close()
        if scores is not None:
            await scores.close()
        await store.close()
