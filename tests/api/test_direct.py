"""A request takes a shorter way when it can; nobody can tell but by the clock."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from reward_service.api.app import create_app, in_process_app
from tests.conftest import ONE_TERM, Running, Start

JSON = "application/json"
ORDINARY = [("?strict=false", JSON), ("", f"{JSON}; charset=utf-8")]
BODIES: dict[str, str] = {
    "good and bad conversations": json.dumps(
        {"conversations": [{"prompt": "p", "response": "1.0"}, {"prompt": "p"}, {"prompt": "q", "response": "1"}]}
    ),
    "a lone surrogate": '{"conversations": [{"prompt": "\\ud800", "response": "1.0"}]}',
    "an unknown field": '{"conversations": [], "timeout": 3}',
    "not JSON": '{"conversations": [',
    "not UTF-8": "\xff",
    "too deep": "[" * 100_000,
    "nothing": "",
}


async def asked(running: Running, query: str, content_type: str, body: str) -> tuple[int, Any]:
    response = await running.http.post(
        f"/v1/score{query}", content=body.encode("latin-1"), headers={"content-type": content_type}
    )
    answer = response.json()
    for changing in ("timings_ms", "request_id"):
        answer.pop(changing, None)
    return response.status_code, answer


@pytest.mark.parametrize("name", BODIES)
async def test_the_shorter_way_answers_as_the_ordinary_one(name: str, start: Start) -> None:
    async with start(ONE_TERM) as running:
        entries = [{"prompt": "p", "rewards": [0.0, 0.5, 1.0]}]
        await running.http.put("/v1/baselines", json={"model": "m", "policy": "sft", "entries": entries})
        direct = await asked(running, "", JSON, BODIES[name])
        ordinary = [await asked(running, query, content_type, BODIES[name]) for query, content_type in ORDINARY]
    assert ordinary == [direct, direct]
    if name == "good and bad conversations":
        assert direct[0] == 200
        assert [score["error"] and score["error"]["code"] for score in direct[1]["scores"]] == [
            None,
            "invalid_request",
            "baseline_missing",
        ]
    else:
        assert direct[0] in (200, 400, 422)


async def test_a_body_that_comes_in_parts_is_answered_too(start: Start) -> None:
    body = BODIES["good and bad conversations"].encode()

    async def parts() -> AsyncIterator[bytes]:
        yield body[:20]
        yield body[20:]

    async with start(ONE_TERM) as running:
        for app in (create_app(running.service), in_process_app(running.service)):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
                answer = await http.post("/v1/score", content=parts(), headers={"content-type": JSON})
            assert [score["id"] for score in answer.json()["scores"]] == [None] * 3


async def test_the_first_of_two_content_types_counts(start: Start) -> None:
    async with start(ONE_TERM) as running:
        for first, second, status in ((JSON, "text/plain", 200), ("text/plain", JSON, 400)):
            headers = [("content-type", first), ("content-type", second)]
            answer = await running.http.post("/v1/score", content='{"conversations": []}', headers=headers)
            assert answer.status_code == status


async def test_both_ways_are_counted_under_their_route(start: Start) -> None:
    async with start(ONE_TERM) as running:
        for query in ("", "?strict=false"):
            await asked(running, query, JSON, '{"conversations": []}')
        metrics = (await running.http.get("/metrics")).text
    assert 'reward_service_requests_total{route="/v1/score",status="200"} 2.0' in metrics


async def test_the_statistics_of_references_are_those_of_the_latest_write(start: Start) -> None:
    body = json.dumps({"conversations": [{"prompt": "p", "response": "1.0"}]})
    baselines = []
    async with start(ONE_TERM) as running:
        for reward in (0.25, 0.75):
            entries = [{"prompt": "p", "rewards": [reward]}]
            await running.http.put("/v1/baselines", json={"model": "m", "policy": "sft", "entries": entries})
            for _ in range(2):
                _, answer = await asked(running, "", JSON, body)
                baselines.append(answer["scores"][0]["terms"][0]["baseline"])
    assert baselines == [0.25, 0.25, 0.75, 0.75]


async def test_prompts_that_differ_in_more_than_their_text_have_baselines_of_their_own(start: Start) -> None:
    named = {"role": "user", "content": "p", "name": "ann"}
    prompts: list[Any] = ["p", [named], [{"role": "system", "content": "p"}], [{"role": "user", "content": "p"}, named]]
    entries = [{"prompt": prompt, "rewards": [float(i)]} for i, prompt in enumerate(prompts)]
    conversations = [{"prompt": prompt, "response": "1.0"} for prompt in [*prompts, *prompts]]
    async with start(ONE_TERM) as running:
        await running.http.put("/v1/baselines", json={"model": "m", "policy": "sft", "entries": entries})
        _, answer = await asked(running, "", JSON, json.dumps({"conversations": conversations}))
    assert [score["terms"][0]["baseline"] for score in answer["scores"]] == [0.0, 1.0, 2.0, 3.0] * 2
