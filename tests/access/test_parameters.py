"""What is refused before it is validated: parameters that no route knows, and lists that nobody needs to look at."""

import json
import time
from typing import Any

import pytest

from tests.access.configs import MODEL, with_limits
from tests.access.serving import GOOD
from tests.conftest import Start


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/score?strct=true", ["query: unknown parameter 'strct'", "did you mean 'strict'?"]),
        ("POST", "/v1/score?strict=true&strict=false", ["query: 'strict' is given more than once"]),
        ("GET", "/v1/baselines?model=m&policy=p&prompt=q&quantil=0.5", ["'quantil'", "did you mean 'quantile'?"]),
        ("GET", "/v1/models?page=2", ["unknown parameter 'page'", "valid: (none)"]),
        ("GET", "/v1/models/m?x", ["unknown parameter 'x'"]),
        ("GET", "/health?verbose=1", ["unknown parameter 'verbose'"]),
    ],
)
async def test_an_unknown_query_parameter_is_refused(method: str, path: str, expected: list[str], start: Start) -> None:
    async with start(MODEL) as running:
        body = {"conversations": [GOOD]} if method == "POST" else None
        refused = await running.http.request(method, path, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert [part for part in expected if part not in refused.json()["detail"]] == []


def body_of(conversations: Any, **more: Any) -> str:
    return json.dumps({"conversations": conversations, **more})


@pytest.mark.parametrize("query", ["", "?strict=true"])
async def test_too_many_conversations_are_counted_and_not_looked_at(query: str, start: Start) -> None:
    """A million that are none would take minutes to tell, and gigabytes."""
    content = '{"conversations": [' + ",".join(["{}"] * 1_000_000) + "]}"
    async with start(MODEL) as running:
        started = time.monotonic()
        refused = await running.http.post(
            f"/v1/score{query}", content=content, headers={"content-type": "application/json"}
        )
        took = time.monotonic() - started
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "conversations: 1000000 in one request; at most 4096" in refused.json()["detail"]
    assert took < 10


REWARDS = {"rewards": ["x"] * 4_000}
FLOODS = {
    "fields": (json.dumps({f"f{i}": 0 for i in range(200_000)}), 422),
    "fields of a conversation": (body_of([{f"f{i}": 0 for i in range(200_000)}]), 200),
    "messages": (body_of([{"messages": [{}] * 200_000}]), 200),
    "references": (body_of([{**GOOD, "references": {"m": REWARDS}}]), 200),
    "entries": (json.dumps({"model": "m", "policy": "p", "entries": [{}] * 100_000}), 422),
    "rewards": (json.dumps({"model": "m", "policy": "p", "entries": [{"prompt": "p", **REWARDS}]}), 422),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_wrong_items_has_a_short_answer(name: str, start: Start) -> None:
    content, status = FLOODS[name]
    method, path = ("PUT", "/v1/baselines") if '"entries"' in content else ("POST", "/v1/score")
    async with start(MODEL) as running:
        answer = await running.http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 5_000, answer.content[:500]
    if status == 200:
        assert answer.json()["scores"][0]["error"]["code"] == "invalid_request"


async def test_the_limit_of_conversations_is_that_of_the_configuration(start: Start) -> None:
    async with start(with_limits(max_request_conversations=2)) as running:
        statuses = [
            (
                await running.http.post(
                    "/v1/score", content=body_of([GOOD] * n), headers={"content-type": "application/json"}
                )
            ).status_code
            for n in (2, 3)
        ]
    assert statuses == [200, 413]
