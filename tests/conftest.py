"""A service over scripted engines, and a client that speaks HTTP to it."""

import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from reward_service.api.app import create_app
from reward_service.catalog import Catalog, Model
from reward_service.config import parse_config
from reward_service.service import Service, assemble
from reward_service.stores import Store, open_store
from reward_service.telemetry import Metrics
from tests.scripted import ScriptedEngine

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Running:
    """A running service, its engines by name, and an HTTP client."""

    service: Service
    engines: dict[str, ScriptedEngine]
    http: httpx.AsyncClient


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start() -> Start:
    """Start a service: `async with start(toml, helpful=ScriptedEngine(...)) as running`."""

    @asynccontextmanager
    async def start(config: str, *, store: Store | None = None, **engines: ScriptedEngine) -> AsyncIterator[Running]:
        parsed = parse_config(tomllib.loads(config), {})
        chosen = {m.name: engines.get(m.name.replace("-", "_")) or ScriptedEngine(m.name) for m in parsed.models}
        catalog = Catalog({model.name: Model(model, chosen[model.name]) for model in parsed.models})
        opened = store or open_store(parsed.store.url)
        service = assemble(parsed, catalog, opened, Metrics())
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield Running(service, chosen, http)
        if store is None:
            await opened.close()

    return start
