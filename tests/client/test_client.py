"""Client and AsyncClient speak to the service and say what failed."""

import inspect
from collections.abc import AsyncIterator

import httpx
import pytest

from reward_service.client import AsyncClient, Client, RequestFailed, calls
from tests.conftest import ONE_TERM, Running, Start

GOOD = {"prompt": "p", "response": "1.0"}


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    async with start(ONE_TERM) as running:
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


async def test_a_refused_request_raises_what_the_service_said(client: AsyncClient) -> None:
    with pytest.raises(RequestFailed) as failed:
        await client.score([GOOD], objective="other")
    error = failed.value
    assert (error.status, error.code) == (404, "objective_not_found")
    assert "no objective 'other'; valid: o" in error.detail
    assert error.request_id


async def test_an_answer_that_is_no_problem_document_is_quoted() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(501, text="bad gateway"))
    async with AsyncClient("http://test", transport=transport) as client:
        with pytest.raises(RequestFailed, match="501 not_a_problem_document: bad gateway"):
            await client.models()
