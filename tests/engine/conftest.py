"""Model folders, each built once per run, and devices that tell what they do."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reward_service.engine.devices import Devices
from tests.engine.fakes import Seen
from tests.engine.models import build

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`folder("bos", labels=3)`: a model folder of that family."""
    root = tmp_path_factory.mktemp("models")

    def make(family: str, labels: int = 1) -> Path:
        path = root / f"{family}-{labels}"
        return path if path.is_dir() else build(family, path, labels=labels)

    return make


@pytest.fixture
def seen() -> Seen:
    """What the devices report."""
    return Seen()


@pytest.fixture
async def devices(seen: Seen) -> AsyncIterator[Devices]:
    """Devices with room for 100,000 tokens."""
    made = Devices(max_queued_tokens=100_000, observer=seen)
    yield made
    await made.close()
