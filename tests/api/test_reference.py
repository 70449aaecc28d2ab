"""500 real conversations over HTTP, in mixed concurrent requests, against the reference script, family by family."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_service.client import AsyncClient
from tests.conversations import real_conversations
from tests.engine import reference
from tests.engine.models import FAMILIES, build
from tests.process import ServiceProcess

MAX_TOKENS = 256
MODELS = {**dict.fromkeys(FAMILIES, 1), "three_labels": 3}
CUTS = [0, 1, 2, 10, 100, 300, 500]
Conversations = list[list[dict[str, Any]]]


@pytest.fixture(scope="module")
def conversations() -> Conversations:
    return real_conversations(500)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    families = {name: "pad_is_eos" if name == "three_labels" else name for name in MODELS}
    return {name: build(families[name], root / name, labels=labels) for name, labels in MODELS.items()}


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path], conversations: Conversations, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Scores by folder, from the reference script in a process of its own."""
    read, answer = (tmp_path_factory.mktemp("reference") / name for name in ("conversations.jsonl", "scores.json"))
    read.write_text("".join(json.dumps(messages) + "\n" for messages in conversations))
    command = [sys.executable, str(reference.__file__), str(read), str(answer), str(MAX_TOKENS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *map(str, folders.values())], check=True, capture_output=True, env=environment)
    return json.loads(answer.read_text())


@pytest.fixture(scope="module")
def url(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with every model, and an objective for each that shows all its labels."""
    text = '[server]\nport = 0\n[store]\nurl = "memory://"\n[limits]\nmax_queued_tokens = 200_000\n'
    for name, folder in folders.items():
        text += f'[[models]]\nname = "{name}"\nsource = "{folder}"\ndtype = "float32"\ndevice = "cpu"\n'
        text += f'max_tokens = {MAX_TOKENS}\non_too_long = "truncate_left"\n'
    for name, labels in MODELS.items():
        text += f'[[objectives]]\nname = "{name}"\naggregate = "mean"\n'
        for label in range(labels):
            text += (
                f'[[objectives.terms]]\nname = "l{label}"\nmodel = "{name}"\nlabel = {label}\ntransform = "identity"\n'
            )
    config = tmp_path_factory.mktemp("service") / "service.toml"
    config.write_text(text)
    with ServiceProcess(config) as service:
        yield service.url


@pytest.mark.parametrize("name", MODELS)
async def test_raw_scores_equal_the_reference_whatever_else_is_in_the_batch(
    name: str, url: str, folders: dict[str, Path], conversations: Conversations, expected: Any
) -> None:
    async with AsyncClient(url) as client:
        asked = [[{"messages": messages} for messages in conversations[a:b]] for a, b in itertools.pairwise(CUTS)]
        answers = await asyncio.gather(*(client.score(part, name) for part in asked))
    raw = np.array([[term.raw for term in score.terms] for answer in answers for score in answer.scores], dtype=float)
    assert raw.shape == (500, MODELS[name])
    assert np.abs(raw - expected[str(folders[name])]).max() < 1e-4
    assert raw.std() > 0.1
