"""Answers of a newer server are read: fields that we do not know, at every level, and words that we do not know."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from reward_service import schemas
from reward_service.client import AsyncClient, RequestFailed
from tests.conftest import ONE_TERM, Running, Start

ASKED = [{"id": "a", "prompt": "p", "response": "1.0"}, {"prompt": "q", "response": "1.0"}]
MAPS = ("models", "baselines")
FREE = ("baseline",)
WORDS = ("baseline_source", "raw_source", "engine", "fingerprint_kind", "dtype", "code", "method", "aggregate", "kind")


class Changed(httpx.AsyncBaseTransport):
    """The answers of a service, changed on their way."""

    def __init__(self, real: httpx.AsyncBaseTransport, change: Callable[[Any], Any]) -> None:
        self._real = real
        self._change = change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._real.handle_async_request(request)
        body = json.loads(await answer.aread())
        return httpx.Response(answer.status_code, json=self._change(body))


def grown(value: Any) -> Any:
    """With a new field in every object; names that stand as keys are no fields."""
    if isinstance(value, list):
        return [grown(one) for one in value]
    if not isinstance(value, dict):
        return value
    inside = {key: one if key in FREE else grown(one) for key, one in value.items()}
    for key in MAPS:
        if isinstance(inside.get(key), dict):
            inside[key].pop("added")
    return {"added": {"by": ["a newer server"]}, **inside}


def reworded(value: Any) -> Any:
    """With a new word wherever there is one of a list."""
    if isinstance(value, list):
        return [reworded(one) for one in value]
    if not isinstance(value, dict):
        return value
    words = {key: "something_new" for key in WORDS if isinstance(value.get(key), str)}
    return {**{key: reworded(one) for key, one in value.items()}, **words}


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    async with start(ONE_TERM) as running:
        yield running


def client(running: Running, change: Callable[[Any], Any]) -> AsyncClient:
    return AsyncClient("http://test", transport=Changed(running.http._transport, change), on_failure="none")


async def every_answer(client: AsyncClient) -> list[Any]:
    """One answer of each kind that does not depend on when it was asked for."""
    put = await client.put_baselines("m", "sft", [{"prompt": "p", "rewards": [0.0]}], idempotency_key="k")
    score = await client.score(ASKED, references=True)
    return [
        put.model_copy(update={"written": 0, "unchanged": 0}),
        score.model_copy(update={"timings_ms": None, "usage": None}),
        await client.baseline("m", "sft", "p"),
        await client.query_baselines("m", "sft", ["p", "q"]),
        await client.freeze_baselines("sft", frozen=False),
        await client.models(),
        await client.model("m"),
        await client.objectives(),
    ]


async def test_new_fields_at_every_level_change_nothing(running: Running) -> None:
    async with client(running, grown) as newer, client(running, lambda body: body) as plain:
        expected = await every_answer(plain)
        assert await every_answer(newer) == expected
        assert (await newer.score(ASKED)).timings_ms.total > 0
        assert (await newer.delete_baselines("sft")).deleted == 1
        with pytest.raises(RequestFailed, match="404 objective_not_found"):
            await newer.score(ASKED, "other")


async def test_new_words_are_read_as_they_are(running: Running) -> None:
    async with client(running, reworded) as newer:
        answers = await every_answer(newer)
    score = answers[1]
    assert score.scores[0].terms[0].baseline_source == "something_new"
    assert score.scores[1].error.code == "something_new"
    assert score.models["m"].engine == "something_new"


def test_no_answer_that_the_client_reads_has_a_closed_list_of_words() -> None:
    probes = {schemas.Health, schemas.Readiness}
    kinds = [one for one in vars(schemas).values() if isinstance(one, type) and issubclass(one, schemas.Answer)]
    closed = [
        kind.__name__
        for kind in kinds
        if kind not in probes and {'"enum":', '"const":'} & set(json.dumps(kind.model_json_schema()).split())
    ]
    assert closed == []
