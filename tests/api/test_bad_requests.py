"""A bad request is answered with a sentence that names the field, the value and what is valid; never with a 500."""

from typing import Any

import pytest

from tests.api.bad_conversations import CENTERED, CONVERSATIONS
from tests.api.bad_requests import GOOD, WHOLE
from tests.conftest import Running, Start

CONFIG = """
[store]
url = "memory://"
[limits]
max_request_conversations = 8

[[models]]
name = "m"
source = "org/m"

[[objectives]]
name = "plain"
aggregate = "weighted_sum"
[[objectives.terms]]
model = "m"
transform = "identity"

[[objectives]]
name = "centered"
aggregate = "and"
[[objectives.terms]]
model = "m"
transform = "log_sigmoid_centered"
baseline = { policy = "sft" }
"""


def test_there_are_enough_cases() -> None:
    assert len(WHOLE) + len(CONVERSATIONS) + len(CENTERED) >= 65


@pytest.mark.parametrize("name", WHOLE)
async def test_a_bad_request_is_a_problem_document_with_a_useful_sentence(name: str, start: Start) -> None:
    method, path, body, status, expected = WHOLE[name]
    async with start(CONFIG) as running:
        content = body if isinstance(body, str) else None
        json = None if content is not None else body
        headers = {"content-type": "application/json"} if content is not None else {}
        response = await running.http.request(method, path, content=content, json=json, headers=headers)
    problem = response.json()
    assert response.status_code == problem["status"] == status, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["code"]
    assert problem["title"]
    assert problem["type"].endswith(problem["code"])
    assert [part for part in expected if part not in problem["detail"]] == [], problem["detail"]


async def mixed(running: Running, objective: str, bad: Any, good: Any) -> Any:
    body = {"objective": objective, "conversations": [good, bad, good]}
    response = await running.http.post("/v1/score", json=body)
    assert response.status_code == 200, response.text
    strict = await running.http.post("/v1/score?strict=true", json=body)
    assert 400 <= strict.status_code < 600
    assert strict.status_code != 500
    assert strict.json()["detail"].startswith("conversations[1]"), strict.json()
    return response.json()["scores"]


@pytest.mark.parametrize(
    ("objective", "name"), [*(("plain", n) for n in CONVERSATIONS), *(("centered", n) for n in CENTERED)]
)
async def test_a_bad_conversation_fails_alone(objective: str, name: str, start: Start) -> None:
    bad, code, expected = (CONVERSATIONS if objective == "plain" else CENTERED)[name]
    good = GOOD if objective == "plain" else {**GOOD, "references": {"m": {"rewards": [0.5, 1.5]}}}
    async with start(CONFIG) as running:
        first, middle, last = await mixed(running, objective, bad, good)
    assert first["reward"] == last["reward"] is not None
    assert first["error"] is None
    assert middle["reward"] is None
    assert middle["error"]["code"] == code
    assert [part for part in expected if part not in middle["error"]["detail"]] == [], middle["error"]["detail"]
