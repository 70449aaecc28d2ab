"""Engines of model folders, started for a test."""

import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

import reward_service
from reward_service.config import ClassifierConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Engine, Estimate, Item, ItemError, Priority
from reward_service.engine.score_cache import ScoreCache

HELLO = Item(messages=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}])
DEMO = Path(reward_service.__file__).parent / "demo" / "models" / "helpful"


@asynccontextmanager
async def serving(folder: Path | str, *, scores: ScoreCache | None = None, **options: Any) -> AsyncIterator[Engine]:
    devices = Devices(max_queued_tokens=100_000, scores=scores)
    config = ClassifierConfig(name="m", source=str(folder), **{"dtype": "float32", "device": "cpu", **options})
    engine = create(config, devices)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()
        await devices.close()


async def results(engine: Engine, items: Sequence[Item]) -> list[Estimate | ItemError]:
    return await engine.score(items, priority=Priority.ROLLOUT, deadline=time.monotonic() + 600)


async def outputs(engine: Engine, *items: Item) -> np.ndarray[Any, np.dtype[np.float64]]:
    estimates = await results(engine, items)
    return np.array([estimate.outputs for estimate in estimates if isinstance(estimate, Estimate)])


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def small_scores(folder: Path, to: Path) -> Path:
    """A copy whose scores are of order 0.1."""
    copied(folder, to)
    weights = load_file(to / "model.safetensors")
    weights["score.weight"] *= 0.1
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to
