"""Many callers at once, callers that leave, and a model that is broken: over HTTP, with real models."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reward_service.client import AsyncClient, ScoringFailed
from reward_service.demo import FOLDER, MODELS
from tests.engine.models import build, nan_for_tildes
from tests.process import ServiceProcess

CALLERS = 512
BEFORE_THEM = 256
"""Conversations of a request that the callers wait behind: how many share a batch is then not how fast they call."""
WORDS = " ".join(f"word{i}" for i in range(400))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a good model (one of the demo's), and one that gives NaN for texts with a tilde."""
    root = tmp_path_factory.mktemp("load")
    (root / "good").symlink_to(FOLDER / "models" / MODELS[0])
    nan_for_tildes(build("bos", root / "broken"))
    text = '[server]\nport = 0\n[store]\nurl = "memory://"\n'
    for name in ("good", "broken"):
        text += f'[[models]]\nname = "{name}"\nsource = "{root}/{name}"\ndtype = "float32"\ndevice = "cpu"\n'
    for name in ("good", "broken"):
        text += f'[[objectives]]\nname = "{name}"\naggregate = "mean"\n'
        text += f'[[objectives.terms]]\nmodel = "{name}"\ntransform = "identity"\n'
    (root / "service.toml").write_text(text)
    with ServiceProcess(root / "service.toml") as service:
        yield service.url


async def metric(url: str, name: str) -> float:
    """The sum of a metric over the labels that say `good`, or over all devices."""
    async with httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"{url}/metrics")).text
    found = re.findall(rf"^{name}{{[^}}]*(?:good|cpu)[^}}]*}} (\S+)$", text, re.MULTILINE)
    return sum(float(number) for number in found)


async def settled(url: str, name: str) -> float:
    """The metric once it has stood still for a second."""
    values = [-1.0, await metric(url, name)]
    while values[-1] != values[-2]:
        await asyncio.sleep(1.0)
        values.append(await metric(url, name))
    return values[-1]


async def test_512_concurrent_single_requests_are_all_answered_and_batched_together(url: str) -> None:
    before = await metric(url, "reward_service_batch_items_count"), await metric(url, "reward_service_batch_items_sum")
    limits = httpx.Limits(max_connections=CALLERS)
    transport = httpx.AsyncHTTPTransport(limits=limits)
    async with AsyncClient(url, transport=transport) as client:
        texts = [(f"question {i}", f"answer {i}. {WORDS[:600]}") for i in range(CALLERS + BEFORE_THEM)]
        asked = [[{"prompt": prompt, "response": response}] for prompt, response in texts]
        large = asyncio.ensure_future(client.score([one for [one] in asked[CALLERS:]], "good"))
        while await metric(url, "reward_service_queued_tokens") == 0 and not large.done():
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(client.score(one, "good") for one in asked[:CALLERS]))
        await large
        alone = [(await client.score(asked[i], "good", cache=False)).rewards[0] for i in (0, 100, 511)]
    rewards = [answer.rewards[0] for answer in answers]
    assert len(rewards) == CALLERS
    assert None not in rewards
    assert [rewards[i] for i in (0, 100, 511)] == pytest.approx(alone, abs=1e-4)
    batches = await metric(url, "reward_service_batch_items_count") - before[0]
    items = await metric(url, "reward_service_batch_items_sum") - before[1]
    assert items == CALLERS + BEFORE_THEM + 3
    assert items / (batches - 3) > 8, f"{batches} batches for {items} items"


async def test_callers_that_hang_up_leave_nothing_computing(url: str) -> None:
    computed = await metric(url, "reward_service_batch_items_sum")
    async with httpx.AsyncClient(timeout=0.15, limits=httpx.Limits(max_connections=64)) as http:

        async def ask(i: int) -> None:
            asked = [{"prompt": f"{i} {j}", "response": WORDS} for j in range(64)]
            await http.post(f"{url}/v1/score", json={"objective": "good", "conversations": asked})

        results = await asyncio.gather(*(ask(i) for i in range(24)), return_exceptions=True)
    assert sum(isinstance(result, httpx.TimeoutException) for result in results) > 3  # others are told to come back
    async with asyncio.timeout(120):
        while await metric(url, "reward_service_queued_tokens") > 0:
            await asyncio.sleep(0.1)
    after = await settled(url, "reward_service_batch_items_sum")  # a batch that runs already is finished
    assert after - computed < 24 * 64 / 2


async def test_nan_weights_make_every_item_an_error_and_none_a_number(url: str) -> None:
    asked = [{"prompt": "p", "response": f"~r{i}"} for i in range(16)]
    async with AsyncClient(url, on_failure="none") as client:
        answer = await client.score(asked, "broken")
    assert answer.rewards == [None] * 16
    assert {score.error.code for score in answer.scores if score.error} == {"not_finite"}
    assert {score.terms[0].raw for score in answer.scores} == {None}
    async with AsyncClient(url) as client:
        with pytest.raises(ScoringFailed, match="16 of 16 conversations have no reward"):
            await client.score(asked, "broken")


def test_the_models_are_where_the_service_looks(url: str) -> None:
    sources = [Path(model["source"]).name for model in httpx.get(f"{url}/v1/models").json()["models"]]
    assert sources == ["good", "broken"]
