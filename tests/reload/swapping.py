"""Reloads of a real model under load: every answer must be of the weights that its fingerprint names."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.reload.conftest import fingerprint, point, raws

CALLERS = 8
Raws = Mapping[str, float]


def responses(count: int) -> list[str]:
    """So many texts of different lengths."""
    return [f"answer {n}: " + " ".join(f"word{n + m}" for m in range(n % 40)) for n in range(count)]


async def asked(http: httpx.AsyncClient, some: Sequence[str], **more: Any) -> httpx.Response:
    """The raw scores of some responses to one prompt."""
    conversations = [{"prompt": "How tall is a giraffe?", "response": response} for response in some]
    return await http.post("/v1/score", json={"conversations": conversations, **more})


async def references(
    http: httpx.AsyncClient, link: Path, folders: Sequence[Path], texts: Sequence[str]
) -> dict[str, Raws]:
    """By fingerprint, the score of every text, with nothing else going on."""
    found: dict[str, Raws] = {}
    for folder in folders:
        point(link, folder)
        assert (await http.post("/v1/models/m/reload")).status_code == 200
        answer = (await asked(http, texts, cache=False)).json()
        found[fingerprint(answer)] = dict(zip(texts, raws(answer), strict=True))
    return found


async def swapped_under_load(
    http: httpx.AsyncClient, link: Path, folders: Sequence[Path], reloads: int
) -> Counter[str]:
    """Reloads the model again and again while callers score; how many answers each of the fingerprints gave.

    Raises AssertionError for an answer that is no answer, or not that of the weights which its fingerprint names.
    """
    texts = responses(96)
    expected = await references(http, link, folders, texts)
    assert len(expected) == len(folders)
    done = asyncio.Event()
    seen: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(_call(http, number, texts, expected, seen, done))
        for number in range(reloads):
            point(link, folders[number % len(folders)])
            answer = await http.post("/v1/models/m/reload")
            assert answer.status_code == 200, answer.text
        done.set()
    return seen


async def _call(
    http: httpx.AsyncClient,
    number: int,
    texts: Sequence[str],
    expected: Mapping[str, Raws],
    seen: Counter[str],
    done: asyncio.Event,
) -> None:
    chance = random.Random(number)
    while not done.is_set():
        some = chance.sample(texts, chance.choice([1, 4, 32]))
        response = await asked(http, some, cache=chance.random() < 0.5)
        assert response.status_code == 200, response.text
        answer = response.json()
        name = fingerprint(answer)
        seen[name] += 1
        for text, raw in zip(some, raws(answer), strict=True):
            assert abs(raw - expected[name][text]) < 1e-4, (name, text, raw, expected[name][text])
