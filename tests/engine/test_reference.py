"""500 real conversations in mixed concurrent batches against the reference script, family by family."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_service.config import ClassifierConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, Priority
from tests.engine import reference
from tests.engine.conftest import Build
from tests.engine.conversations import real_conversations
from tests.engine.models import FAMILIES

MAX_TOKENS = 256
MODELS = [*((family, 1) for family in FAMILIES), ("pad_is_eos", 3)]


@pytest.fixture(scope="module")
def conversations() -> list[list[dict[str, Any]]]:
    return real_conversations(500)


@pytest.fixture(scope="module")
def expected(
    folder: Build, conversations: list[list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[list[float]]]:
    """Scores by folder, from the reference script in a process of its own."""
    read, answer = (tmp_path_factory.mktemp("reference") / name for name in ("conversations.jsonl", "scores.json"))
    read.write_text("".join(json.dumps(messages) + "\n" for messages in conversations))
    folders = [str(folder(family, labels)) for family, labels in MODELS]
    command = [sys.executable, str(Path(reference.__file__)), str(read), str(answer), str(MAX_TOKENS), *folders]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    scores: dict[str, list[list[float]]] = json.loads(answer.read_text())
    return scores


@pytest.mark.parametrize(("family", "labels"), MODELS)
async def test_scores_equal_the_reference_whatever_else_is_in_the_batch(
    folder: Build,
    conversations: list[list[dict[str, Any]]],
    expected: dict[str, list[list[float]]],
    family: str,
    labels: int,
) -> None:
    path = str(folder(family, labels))
    config = ClassifierConfig(
        name="m", source=path, dtype="float32", device="cpu", max_tokens=MAX_TOKENS, on_too_long="truncate_left"
    )
    devices = Devices(max_queued_tokens=50_000)
    engine = create(config, devices)
    await engine.start()
    items = [Item(messages=messages) for messages in conversations]
    cuts = [0, 1, 2, 10, 100, 300, 500]
    calls = [
        engine.score(items[start:stop], priority=Priority.ROLLOUT, deadline=time.monotonic() + 120)
        for start, stop in itertools.pairwise(cuts)
    ]
    results = [result for answered in await asyncio.gather(*calls) for result in answered]
    await engine.close()
    await devices.close()
    scores = np.array([result.outputs for result in results if isinstance(result, Estimate)])
    assert scores.shape == (500, labels)
    assert np.abs(scores - expected[path]).max() < 1e-4
    assert scores.std() > 0.1
