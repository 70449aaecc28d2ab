"""Model folders, each built once per run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.models import build

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`folder("bos", labels=3)`: a model folder of that family."""
    root = tmp_path_factory.mktemp("hosted")

    def make(family: str, labels: int = 1, seed: int = 0) -> Path:
        path = root / f"{family}-{labels}-{seed}"
        return path if path.is_dir() else build(family, path, labels=labels, seed=seed)

    return make
