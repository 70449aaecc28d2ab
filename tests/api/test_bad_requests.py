"""A bad request is answered with a sentence that names the field, the value and what is valid; never with a 500."""

from typing import Any

import pytest

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
GOOD = {"prompt": "p", "response": "1.0"}
Json = dict[str, Any]


def score(*conversations: Any, **more: Any) -> Json:
    return {"objective": "plain", "conversations": list(conversations), **more}


WHOLE: dict[str, tuple[str, str, Any, int, list[str]]] = {
    "not JSON": ("POST", "/v1/score", "{", 400, ["body is not valid JSON", "at character 1"]),
    "no body": ("POST", "/v1/score", "", 422, ["body: required"]),
    "a list": ("POST", "/v1/score", [1], 422, ["body: [1] is not valid: expected an object"]),
    "no conversations": ("POST", "/v1/score", {"objective": "plain"}, 422, ["conversations: required"]),
    "conversations of another type": ("POST", "/v1/score", {"conversations": {}}, 422, ["conversations: {}", "list"]),
    "unknown field": (
        "POST",
        "/v1/score",
        score(GOOD, objectve="x"),
        422,
        ["unknown field 'objectve'", "did you mean 'objective'?"],
    ),
    "objective of another type": (
        "POST",
        "/v1/score",
        {**score(GOOD), "objective": 3},
        422,
        ["objective: 3", "string"],
    ),
    "no default objective": (
        "POST",
        "/v1/score",
        {"conversations": [GOOD]},
        422,
        ["objective: required", "valid: plain, centered"],
    ),
    "unknown objective": (
        "POST",
        "/v1/score",
        {**score(GOOD), "objective": "plian"},
        404,
        ["'plian'", "did you mean 'plain'?"],
    ),
    "timeout of zero": ("POST", "/v1/score", score(GOOD, timeout_s=0), 422, ["timeout_s: 0", "greater than 0"]),
    "timeout not finite": (
        "POST",
        "/v1/score",
        '{"objective": "plain", "conversations": [], "timeout_s": NaN}',
        422,
        ["timeout_s", "finite"],
    ),
    "too many": ("POST", "/v1/score", score(*[GOOD] * 9), 413, ["conversations: 9", "at most 8"]),
    "another objective expected": (
        "POST",
        "/v1/score",
        score(GOOD, expect={"objective_hash": "sha256:0"}),
        409,
        ["expect.objective_hash: 'sha256:0'"],
    ),
    "another model expected": (
        "POST",
        "/v1/score",
        score(GOOD, expect={"models": {"m": "sha256:0"}}),
        409,
        ["expect.models.m: 'sha256:0'"],
    ),
    "unknown model expected": (
        "POST",
        "/v1/score",
        score(GOOD, expect={"models": {"n": "x"}}),
        404,
        ["no model 'n'", "valid: m"],
    ),
    "another baseline expected": (
        "POST",
        "/v1/score",
        score(GOOD, expect={"baselines": {"sft": 3}}),
        409,
        ["expect.baselines.sft: revision 3", "0 now"],
    ),
    "misspelt expectation": (
        "POST",
        "/v1/score",
        score(GOOD, expect={"objective": "x"}),
        422,
        ["expect.objective: unknown field", "objective_hash"],
    ),
    "strict of another type": ("POST", "/v1/score?strict=perhaps", score(GOOD), 422, ["strict: 'perhaps'", "boolean"]),
    "put without entries": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": []},
        422,
        ["entries: []", "at least 1"],
    ),
    "put to an unknown model": (
        "PUT",
        "/v1/baselines",
        {"model": "n", "policy": "sft", "entries": [{"prompt": "p", "rewards": [1]}]},
        404,
        ["no model 'n'"],
    ),
    "put both kinds": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p", "rewards": [1], "responses": ["a"]}]},
        422,
        ["entries[0]: give either `rewards` or `responses`"],
    ),
    "put neither kind": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p"}]},
        422,
        ["entries[0]: give either"],
    ),
    "put an empty prompt": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "", "rewards": [1]}]},
        422,
        ["entries[0]: prompt is empty"],
    ),
    "put a reward that is none": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p", "rewards": [1, "x"]}]},
        422,
        ["entries[0].rewards", "'x'", "number"],
    ),
    "put an infinite reward": (
        "PUT",
        "/v1/baselines",
        '{"model": "m", "policy": "sft", "entries": [{"prompt": "p", "rewards": [Infinity]}]}',
        422,
        ["entries[0].rewards[0]", "finite"],
    ),
    "put rows for labels": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p", "rewards": [[1, 2]]}]},
        422,
        ["rewards", "1 output"],
    ),
    "put with too few draw ids": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p", "rewards": [1, 2], "draw_ids": ["a"]}]},
        422,
        ["1 draw_ids for 2"],
    ),
    "put with repeated draw ids": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p", "rewards": [1, 2], "draw_ids": ["a", "a"]}]},
        422,
        ["draw_ids repeat"],
    ),
    "put in another mode": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "mode": "append", "entries": [{"prompt": "p", "rewards": [1]}]},
        422,
        ["mode: 'append'", "'replace' or 'merge'"],
    ),
    "put for a policy without name": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "", "entries": [{"prompt": "p", "rewards": [1]}]},
        422,
        ["policy: ''"],
    ),
    "put a response that fails": (
        "PUT",
        "/v1/baselines",
        {"model": "m", "policy": "sft", "entries": [{"prompt": "p", "responses": ["1", "boom"]}]},
        503,
        ["entries[0].responses[1]", "the device failed"],
    ),
    "get without a prompt": ("GET", "/v1/baselines?model=m&policy=sft", None, 422, ["prompt: required"]),
    "get a quantile of 1": (
        "GET",
        "/v1/baselines?model=m&policy=sft&prompt=p&quantile=1",
        None,
        422,
        ["quantile: '1'", "less than 1"],
    ),
    "get a method that is none": (
        "GET",
        "/v1/baselines?model=m&policy=sft&prompt=p&method=mode",
        None,
        422,
        ["method: 'mode'", "'empirical'"],
    ),
    "get what is not stored": (
        "GET",
        "/v1/baselines?model=m&policy=sft&prompt=p",
        None,
        404,
        ["no references of policy 'sft'"],
    ),
    "get a label that is none": (
        "GET",
        "/v1/baselines?model=m&policy=sft&prompt=p&label=7",
        None,
        422,
        ["label", "7", "0 or 'LABEL_0'"],
    ),
    "query without prompts": (
        "POST",
        "/v1/baselines/query",
        {"model": "m", "policy": "sft", "prompts": []},
        422,
        ["prompts: []", "at least 1"],
    ),
    "query a number": (
        "POST",
        "/v1/baselines/query",
        {"model": "m", "policy": "sft", "prompts": [3]},
        422,
        ["prompts[0]: 3", "string"],
    ),
    "freeze what is not there": (
        "POST",
        "/v1/baselines/freeze",
        {"policy": "nobody"},
        404,
        ["policy 'nobody' has no baselines"],
    ),
    "snapshot of nothing": ("POST", "/v1/baselines/global", {"model": "m", "policy": "sft"}, 422, ["100", "0"]),
    "delete from an unknown model": ("DELETE", "/v1/baselines?model=x&policy=sft", None, 404, ["no model 'x'"]),
    "policy with a slash": ("GET", "/v1/baselines?model=m&policy=a/b&prompt=p", None, 422, ["'a/b'", "policy"]),
    "unknown model": ("GET", "/v1/models/helpful", None, 404, ["no model 'helpful'", "valid: m"]),
    "unknown route": ("GET", "/v1/scores", None, 404, ["no route /v1/scores", "/docs"]),
    "wrong method": ("GET", "/v1/score", None, 405, ["GET is not served at /v1/score"]),
}

CONVERSATIONS: dict[str, tuple[Any, str, list[str]]] = {
    "not an object": ("hello", "invalid_request", ["conversations[1]", "'hello'"]),
    "empty": ({}, "invalid_request", ["conversations[1]", "given: none"]),
    "prompt alone": ({"prompt": "p"}, "invalid_request", ["`prompt` with `response`", "given: prompt"]),
    "response alone": ({"response": "1"}, "invalid_request", ["given: response"]),
    "both forms": (
        {"prompt": "p", "response": "1", "text": "t"},
        "invalid_request",
        ["given: prompt and response and text"],
    ),
    "messages that are none": ({"messages": []}, "invalid_request", ["conversations[1].messages: []", "at least 1"]),
    "last turn of the user": (
        {"messages": [{"role": "user", "content": "hi"}]},
        "invalid_request",
        ["end in the assistant turn", "'user'"],
    ),
    "message without content": ({"messages": [{"role": "assistant"}]}, "invalid_request", ["messages[0]", "`content`"]),
    "message without role": ({"messages": [{"content": "x"}]}, "invalid_request", ["messages[0].role: required"]),
    "content of another type": (
        {"messages": [{"role": "assistant", "content": 4}]},
        "invalid_request",
        ["messages[0].content: 4", "string"],
    ),
    "misspelt field": (
        {"prompt": "p", "respones": "1"},
        "invalid_request",
        ["unknown field 'respones'", "did you mean 'response'?"],
    ),
    "id of another type": ({**GOOD, "id": 5}, "invalid_request", ["conversations[1].id: 5", "string"]),
    "empty prompt": ({"prompt": "", "response": "1"}, "invalid_request", ["prompt is empty"]),
    "tools with text": ({"text": "t", "tools": [{"type": "function"}]}, "invalid_request", ["`tools`", "`text`"]),
    "references for no term": (
        {**GOOD, "references": {"x": {"rewards": [1.0]}}},
        "invalid_request",
        ["conversations[1].references.x", "no such term"],
    ),
    "references of both kinds": (
        {**GOOD, "references": {"m": {"rewards": [1.0], "responses": ["1"]}}},
        "invalid_request",
        ["references.m: give either"],
    ),
    "references that are none": (
        {**GOOD, "references": {"m": {"rewards": []}}},
        "invalid_request",
        ["references.m.rewards: []", "at least 1"],
    ),
    "model gives NaN": ({"prompt": "p", "response": "nan"}, "not_finite", ["NaN"]),
    "device fails": ({"prompt": "p", "response": "boom"}, "engine_failed", ["the device failed"]),
}

CENTERED: dict[str, tuple[Any, str, list[str]]] = {
    "no references": (GOOD, "baseline_missing", ["term 'm'", "0 references", "'sft'", "8 needed", "PUT /v1/baselines"]),
    "text has no prompt": ({"text": "1.0"}, "prompt_required", ["term 'm'", "`text`"]),
    "a reference fails": (
        {**GOOD, "references": {"m": {"responses": ["1", "nan"]}}},
        "not_finite",
        ["references.m.responses[1]"],
    ),
    "text with responses": (
        {"text": "1.0", "references": {"m": {"responses": ["1"]}}},
        "invalid_request",
        ["references.m.responses", "`rewards`"],
    ),
}


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
