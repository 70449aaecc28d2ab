"""Client and AsyncClient speak to the service and say what failed."""

import inspect
from collections.abc import AsyncIterator

import httpx
import pytest

from reward_service.client import AsyncClient, Client, RequestFailed, ScoringFailed, calls
from reward_service.schemas import ScoreAnswer
from tests.conftest import Running, Start

CONFIG = """
[store]
url = "memory://"
[[models]]
name = "m"
source = "org/m"
[[objectives]]
name = "o"
aggregate = "and"
[[objectives.terms]]
model = "m"
transform = "log_sigmoid_centered"
baseline = { policy = "sft", min_references = 1 }
"""
GOOD = {"prompt": "p", "response": "1.0"}
BAD = {"prompt": "unknown", "response": "1.0"}


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    async with start(CONFIG) as running:
        yield running


@pytest.fixture
async def client(running: Running) -> AsyncIterator[AsyncClient]:
    async with AsyncClient("http://test", transport=running.http._transport) as client:
        yield client


async def test_every_call_has_its_method_and_answers_in_types(client: AsyncClient) -> None:
    assert (await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [0.0]}], mode="merge")).written == 1
    answer = await client.score([GOOD], references=True)
    assert answer.rewards == [pytest.approx(-0.31326168751822286)]
    reference = answer.scores[0].terms[0].reference
    assert reference is not None
    assert reference.rewards == [0.0]
    assert (await client.baseline("m", "sft", "p")).value == 0.0
    assert [b.count for b in (await client.query_baselines("m", "sft", ["p", "q"])).baselines] == [1, 0]
    assert (await client.freeze_baselines("sft")).frozen
    assert not (await client.freeze_baselines("sft", frozen=False)).frozen
    assert (await client.models()).models[0] == await client.model("m")
    assert (await client.objectives()).objectives[0].objective_hash == answer.objective_hash
    with pytest.raises(RequestFailed, match="100 prompts"):
        await client.build_global_baseline("m", "sft")
    assert (await client.delete_baselines("sft", model="m")).deleted == 1


def test_both_clients_have_every_call() -> None:
    functions = inspect.getmembers(calls, inspect.isfunction)
    described = {name for name, call in functions if call.__module__ == calls.__name__ and not name.startswith("_")}
    for kind in (Client, AsyncClient):
        assert described <= set(vars(kind)), kind


def test_the_sync_client_sends_the_same_calls() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"models": [], "added_by_a_newer_server": 1})

    with Client("http://test", transport=httpx.MockTransport(answer)) as client:
        assert client.models().models == []
    assert (seen[0].method, seen[0].url.path) == ("GET", "/v1/models")


async def test_a_conversation_without_a_reward_raises_unless_told_otherwise(
    client: AsyncClient, running: Running
) -> None:
    await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [0.0]}])
    with pytest.raises(
        ScoringFailed, match=r"1 of 2 conversations have no reward; conversations\[1\]: term 'm'"
    ) as failed:
        await client.score([GOOD, BAD])
    assert list(failed.value.failed) == [1]
    async with AsyncClient("http://test", transport=running.http._transport, on_failure="none") as lenient:
        first, second = (await lenient.score([GOOD, BAD])).rewards
    assert first is not None
    assert second is None


async def test_a_refused_request_raises_what_the_service_said(client: AsyncClient) -> None:
    with pytest.raises(RequestFailed) as failed:
        await client.score([GOOD], objective="other")
    error = failed.value
    assert (error.status, error.code) == (404, "objective_not_found")
    assert "no objective 'other'; valid: o" in error.detail
    assert error.request_id


async def test_an_answer_that_is_no_problem_document_is_quoted() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="bad gateway"))
    async with AsyncClient("http://test", transport=transport) as client:
        with pytest.raises(RequestFailed, match="502 not_a_problem_document: bad gateway"):
            await client.models()


async def test_answers_of_a_newer_server_are_read_at_every_level(client: AsyncClient, running: Running) -> None:
    await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [0.0]}])
    body = (await running.http.post("/v1/score", json={"conversations": [GOOD]})).json()

    def extended(value: object) -> object:
        if isinstance(value, dict):
            return {"added": 1, **{k: v if k == "baseline" else extended(v) for k, v in value.items()}}
        return [extended(one) for one in value] if isinstance(value, list) else value

    body["models"] = {"m": extended(body["models"]["m"])}
    grown = {"added": 1, **{k: v if k in ("models", "baselines") else extended(v) for k, v in body.items()}}
    assert ScoreAnswer.model_validate(grown) == ScoreAnswer.model_validate(body)
