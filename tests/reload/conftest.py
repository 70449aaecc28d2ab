"""Services whose models can be loaded anew: a real one over a link, and one of engines that a test holds."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_service.api.app import create_app
from reward_service.catalog import Catalog, Model
from reward_service.config import parse_config
from reward_service.engine.engine import EngineCard, Fingerprint
from reward_service.service import Service, assemble, running
from reward_service.stores import open_store
from reward_service.telemetry import Metrics
from tests.engine.models import build
from tests.scripted import ScriptedEngine

OBJECTIVE = (
    '[[objectives]]\nname = "raw"\naggregate = "mean"\n[[objectives.terms]]\nmodel = "m"\ntransform = "identity"\n'
)
MODEL = '[[models]]\nname = "m"\nsource = "{source}"\ndevice = "cpu"\ndtype = "float32"\nparity = "self"\n'
MEMORY = '[store]\nurl = "memory://"\n'


@dataclass(frozen=True)
class Served:
    """A running service and an HTTP client of it."""

    service: Service
    http: httpx.AsyncClient

    async def score(self, *responses: str, **more: Any) -> dict[str, Any]:
        conversations = [{"prompt": "p", "response": response} for response in responses]
        answer = await self.http.post("/v1/score", json={"conversations": conversations, **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def reload(self) -> httpx.Response:
        return await self.http.post("/v1/models/m/reload")


def fingerprint(answer: dict[str, Any]) -> str:
    return str(answer["models"]["m"]["fingerprint"])


def raws(answer: dict[str, Any]) -> list[float]:
    return [one["terms"][0]["raw"] for one in answer["scores"]]


def point(link: Path, folder: Path) -> Path:
    """Sets a link to a folder in one step."""
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(folder)
    return new.replace(link)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models that differ in their weights alone."""
    root = tmp_path_factory.mktemp("reload")
    return build("bos", root / "one", seed=1), build("bos", root / "two", seed=2)


@pytest.fixture
def link(tmp_path: Path, folders: tuple[Path, Path]) -> Path:
    """What the configuration names: it leads to the first of the folders."""
    return point(tmp_path / "model", folders[0])


@asynccontextmanager
async def serving(source: Path, objective: str = OBJECTIVE) -> AsyncIterator[Served]:
    """A real service with the model at `source`."""
    config = parse_config(tomllib.loads(MEMORY + MODEL.format(source=source) + objective), {})
    async with running(config) as service:
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as http:
            yield Served(service, http)


class Versioned(ScriptedEngine):
    """An engine whose fingerprint names its version; what hinders its start is raised there."""

    def __init__(
        self, version: str, labels: tuple[str, ...] = ("LABEL_0",), hindrance: Exception | None = None
    ) -> None:
        super().__init__(version, labels)
        self.card = EngineCard(
            engine="scripted",
            labels=labels,
            fingerprint=Fingerprint(version, "weights"),
            dtype="float32",
            device="cpu",
            max_tokens=4096,
        )
        self.hindrance = hindrance
        self.closed = False

    async def start(self) -> None:
        if self.hindrance is not None:
            raise self.hindrance

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Versions(Served):
    """A service over the first engine; each reload takes the next of `later`."""

    first: Versioned = field(default_factory=lambda: Versioned("one"))


@asynccontextmanager
async def versions(
    first: Versioned, *later: Versioned, objective: str = OBJECTIVE, model: str = ""
) -> AsyncIterator[Versions]:
    """A service over engines of the test's own; `model` are more lines of the model's table."""
    text = MEMORY + MODEL.format(source="org/model") + model + objective
    config = parse_config(tomllib.loads(text), {})
    rest = iter(later)
    catalog = Catalog({"m": Model(config.models[0], first)}, lambda _: next(rest))
    service = assemble(config, catalog, open_store("memory://"), Metrics())
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield Versions(service, http, first)
    await service.reloads.close()
    await catalog.close()
