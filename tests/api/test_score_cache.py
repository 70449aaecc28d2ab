"""The score cache over HTTP, with a real model: what is computed, what is counted, what survives."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_service.api.app import create_app
from reward_service.client import AsyncClient
from reward_service.config import parse_config
from reward_service.demo import FOLDER, MODELS
from reward_service.service import running

CONVERSATIONS: list[dict[str, Any]] = [
    {"prompt": "How tall is a giraffe?", "response": "About five metres."},
    {"prompt": "How tall is a giraffe?", "response": "Very."},
    {"prompt": "How tall is a giraffe?", "response": "Very."},
]


def config(store: str, more: str = "", model: str = MODELS[0]) -> str:
    return f"""
[store]
url = "{store}"
[[models]]
name = "m"
source = "{FOLDER}/models/{model}"
device = "cpu"
dtype = "float32"
parity = "self"
[[objectives]]
name = "raw"
aggregate = "mean"
[[objectives.terms]]
model = "m"
transform = "identity"
{more}
"""


@asynccontextmanager
async def served(toml: str) -> AsyncIterator[httpx.AsyncClient]:
    async with running(parse_config(tomllib.loads(toml), {})) as service:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield http


async def score(http: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await http.post("/v1/score", json={"conversations": CONVERSATIONS, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def raws(answer: dict[str, Any]) -> list[float]:
    return [one["terms"][0]["raw"] for one in answer["scores"]]


async def test_a_second_identical_request_computes_nothing() -> None:
    async with served(config("memory://")) as http:
        first, second = await score(http), await score(http)
        metrics = (await http.get("/metrics")).text
    assert first["usage"]["tokens_computed"] > 0
    assert first["usage"]["cached_scores"] == 1  # the third conversation equals the second
    assert second["usage"] == {"tokens": first["usage"]["tokens"], "tokens_computed": 0, "cached_scores": 3}
    assert raws(second) == raws(first)
    assert [one["terms"][0]["raw_source"] for one in second["scores"]] == ["model"] * 3
    assert 'reward_service_cached_scores_total{model="m"} 3.0' in metrics


async def test_a_request_may_opt_out() -> None:
    async with served(config("memory://")) as http:
        first = await score(http)
        anew = await score(http, cache=False)
        async with AsyncClient("http://test", transport=http._transport) as client:
            by_client = await client.score(CONVERSATIONS, cache=False)
            kept = await client.score(CONVERSATIONS)
    computed = first["usage"]["tokens_computed"]
    assert anew["usage"]["tokens_computed"] == by_client.usage.tokens_computed == computed
    assert kept.usage.tokens_computed == 0
    assert raws(anew) == pytest.approx(raws(first), abs=1e-6)


async def test_the_configuration_may_switch_it_off() -> None:
    async with served(config("memory://", "[score_cache]\nenabled = false\n")) as http:
        first, second = await score(http), await score(http)
    assert first["usage"] == second["usage"]


async def test_an_option_that_is_not_a_boolean_is_named() -> None:
    async with served(config("memory://")) as http:
        answer = await http.post("/v1/score", json={"conversations": CONVERSATIONS, "cache": "no"})
    assert answer.status_code == 422
    assert "cache: " in answer.json()["detail"]


async def test_scores_survive_a_restart_and_belong_to_their_model(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    async with served(config(store)) as http:
        first = await score(http)
    async with served(config(store)) as http:
        second = await score(http)
    async with served(config(store, model=MODELS[1])) as http:
        other = await score(http)
    assert (second["usage"]["tokens_computed"], raws(second)) == (0, raws(first))
    assert other["usage"]["tokens_computed"] == first["usage"]["tokens_computed"]
    assert raws(other) != raws(first)


async def test_responses_stored_as_references_are_not_computed_again() -> None:
    entry = {"prompt": "How tall is a giraffe?", "responses": ["Very.", "About five metres.", "Taller than a horse."]}
    async with served(config("memory://")) as http:
        await score(http)
        written = await http.put("/v1/baselines", json={"model": "m", "policy": "sft", "entries": [entry]})
        assert written.status_code == 200, written.text
        metrics = (await http.get("/metrics")).text
    assert 'reward_service_cached_scores_total{model="m"} 2.0' in metrics
