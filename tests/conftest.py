"""A service over scripted engines, and a client that speaks HTTP to it."""

import os
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from reward_service.api.app import create_app
from reward_service.catalog import Catalog, Model
from reward_service.config import Config, parse_config
from reward_service.service import Service, assemble
from reward_service.stores import Store, open_store
from reward_service.telemetry import Metrics
from tests.redis_server import RedisServer
from tests.scripted import ScriptedEngine

with suppress(ImportError):  # the environments of vLLM and of the trainers are without it
    import hypothesis

    # "ci" is Hypothesis's own: the same examples in every run, and no limit on the time of one.
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
ONE_TERM = """
[store]
url = "memory://"
[[models]]
name = "m"
source = "org/m"
[[objectives]]
name = "o"
aggregate = "and"
[[objectives.terms]]
model = "m"
transform = "log_sigmoid_centered"
baseline = { policy = "sft", min_references = 1 }
"""
"""An objective `o` of one model `m`, compared with stored references of the policy `sft`."""


@dataclass(frozen=True)
class Running:
    """A running service, its engines by name, and an HTTP client."""

    service: Service
    engines: dict[str, ScriptedEngine]
    http: httpx.AsyncClient


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server for tests that leave it as it is; each finds what the others left."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The shared server, empty."""
    shared_redis.command("FLUSHALL")
    return shared_redis


@asynccontextmanager
async def assembled(
    config: Config, store: Store | None = None, **engines: ScriptedEngine
) -> AsyncIterator[tuple[Service, dict[str, ScriptedEngine]]]:
    """A service over scripted engines, those given or new ones, and all of them by model."""
    chosen = {m.name: engines.get(m.name.replace("-", "_")) or ScriptedEngine(m.name) for m in config.models}
    models = {model.name: Model(model, chosen[model.name]) for model in config.models}
    catalog = Catalog(models, lambda model: ScriptedEngine(model.name))
    opened = store or open_store(config.store.url, timeout_s=config.store.timeout_s)
    try:
        service = assemble(config, catalog, opened, Metrics())
        try:
            yield service, chosen
        finally:
            await service.submissions.close()
    finally:
        if store is None:
            await opened.close()


@pytest.fixture
def start() -> Start:
    """Start a service: `async with start(toml, helpful=ScriptedEngine(...)) as running`."""

    @asynccontextmanager
    async def start(config: str, *, store: Store | None = None, **engines: ScriptedEngine) -> AsyncIterator[Running]:
        async with assembled(parse_config(tomllib.loads(config), {}), store, **engines) as (service, chosen):
            transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                yield Running(service, chosen, http)

    return start
