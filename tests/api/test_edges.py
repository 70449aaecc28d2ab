"""Where numbers, texts and time run out: an error with its reason, never a number, a null or a 500."""

import asyncio
import json
from typing import Any

import pytest

from reward_service.errors import NotReady, Overloaded
from tests.conftest import Running, Start
from tests.scripted import ScriptedEngine

CONFIG = """
[store]
url = "memory://"
[limits]
max_request_conversations = 8

[[models]]
name = "m"
source = "org/m"
temperature = 0.5
[[models]]
name = "watched"
source = "org/watched"
[[models]]
name = "canned"
source = "org/canned"

[[objectives]]
name = "centered"
aggregate = "weighted_sum"
[[objectives.terms]]
model = "m"
transform = "centered"
baseline = { policy = "sft", min_references = 1 }

[[objectives]]
name = "standardize"
aggregate = "weighted_sum"
[[objectives.terms]]
model = "m"
transform = "standardize"
baseline = { policy = "sft", min_references = 1 }

[[objectives]]
name = "watching"
aggregate = "mean"
[[objectives.terms]]
model = "m"
transform = "identity"
[[objectives.terms]]
model = "watched"
transform = "identity"
weight = 0.0

[[objectives]]
name = "canned"
aggregate = "mean"
[[objectives.terms]]
model = "canned"
transform = "centered"
baseline = { response = "0.5" }

[[objectives]]
name = "heavy"
aggregate = "weighted_sum"
[[objectives.terms]]
model = "m"
transform = "identity"
weight = 1e308
"""
GOOD = {"prompt": "p", "response": "1.0"}
ZERO = {"references": {"m": {"rewards": [0.0]}}}


async def ask(running: Running, objective: str, *conversations: Any, **more: Any) -> Any:
    content = json.dumps({"objective": objective, "conversations": list(conversations), **more})
    response = await running.http.post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text
    return response.json()["scores"]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({**GOOD, "id": "\ud800"}, "conversations[1].id: character 0 is half of a surrogate pair"),
        ({"prompt": "\udfff", "response": "1"}, "half of a surrogate pair"),
        ({**GOOD, "references": {"\ud800": {"rewards": [1]}}}, "\\ud800: no such term"),
        ({**GOOD, "tools": [{"x": float("nan")}]}, "not JSON"),
    ],
    ids=["id", "prompt", "term", "tools"],
)
async def test_a_text_or_value_that_cannot_be_used_fails_alone(bad: Any, expected: str, start: Start) -> None:
    good = {**GOOD, "references": {"m": {"rewards": [0.0]}}}
    async with start(CONFIG) as running:
        first, middle, last = await ask(running, "centered", good, bad, good)
    assert first["reward"] == last["reward"] == 2.0
    assert middle["reward"] is None
    assert expected in middle["error"]["detail"]


async def test_a_deeply_nested_value_is_no_unexpected_error(start: Start) -> None:
    messages = [{"role": "assistant", "tool_calls": [nested(250)]}, {"role": "assistant", "content": "1"}]
    async with start(CONFIG) as running:
        deep, good = await ask(running, "watching", {"messages": messages}, GOOD)
        content = "[" * 100_000
        deeper = await running.http.post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert good["reward"] == 2.0
    assert deep["error"] is None or "nested too deeply" in deep["error"]["detail"]
    assert (deeper.status_code, deeper.json()["code"]) == (400, "malformed_request")
    assert "nested too deeply" in deeper.json()["detail"]


async def test_a_body_that_is_not_sent_as_json_is_told_how(start: Start) -> None:
    async with start(CONFIG) as running:
        response = await running.http.post(
            "/v1/score", content='{"conversations": []}', headers={"content-type": "text/plain"}
        )
    assert response.status_code == 400
    assert "content-type: application/json" in response.json()["detail"]


async def test_references_beyond_any_reward_are_refused(start: Start) -> None:
    async with start(CONFIG) as running:
        (score,) = await ask(running, "centered", {**GOOD, "references": {"m": {"rewards": [1.7e308]}}})
    assert score["error"]["code"] == "invalid_request"
    assert "conversations[0].references.m.rewards[0]: 1.7e+308" in score["error"]["detail"]


async def test_two_models_of_one_request_share_one_admission(start: Start) -> None:
    first, second = ScriptedEngine("m"), ScriptedEngine("watched")
    async with start(CONFIG, m=first, watched=second) as running:
        await ask(running, "watching", GOOD)
    assert (first.admitted, second.admitted) == ([False], [True])


async def test_a_number_too_large_to_represent_is_an_error_and_not_a_null(start: Start) -> None:
    async with start(CONFIG) as running:
        (centered,) = await ask(running, "centered", {"prompt": "p", "response": "1.7e308", **ZERO})
        (heavy,) = await ask(running, "heavy", {"prompt": "p", "response": "100"})
    for score in (centered, heavy):
        assert score["reward"] is None
        assert score["error"]["code"] == "not_finite"
        assert "too large to represent" in score["error"]["detail"]


async def test_references_equal_but_for_rounding_have_no_z_score(start: Start) -> None:
    equal = {**GOOD, "references": {"m": {"rewards": [1.0, 1.00000012]}}}
    async with start(CONFIG) as running:
        (score,) = await ask(running, "standardize", equal)
    assert score["reward"] is None
    assert score["error"]["code"] == "baseline_unusable"
    assert "needs at least 2 references that differ" in score["error"]["detail"]


async def test_a_watched_model_that_fails_as_a_whole_cannot_fail_the_reward(start: Start) -> None:
    engine = ScriptedEngine("watched")
    engine.raises = NotReady("not loaded")
    async with start(CONFIG, watched=engine) as running:
        (score,) = await ask(running, "watching", GOOD)
        engine.raises = None
        (later,) = await ask(running, "watching", GOOD)
    assert score["reward"] == later["reward"] == 2.0
    assert [term["error"] and term["error"]["code"] for term in score["terms"]] == [None, "not_ready"]


async def test_reference_responses_count_as_conversations(start: Start) -> None:
    many = {**GOOD, "references": {"m": {"responses": ["1"] * 8}}}
    async with start(CONFIG) as running:
        body = {"objective": "centered", "conversations": [many]}
        response = await running.http.post("/v1/score", json=body)
    assert response.status_code == 413
    assert "9 in one request, reference responses included; at most 8" in response.json()["detail"]


async def test_a_request_does_not_wait_for_a_canned_response_past_its_time(start: Start) -> None:
    engine = ScriptedEngine("canned")
    engine.gate = asyncio.Event()
    async with start(CONFIG, canned=engine) as running:
        asked = asyncio.create_task(ask(running, "canned", GOOD, timeout_s=60))
        while len(engine.calls) < 2:
            await asyncio.sleep(0.01)
        conversations = engine.calls[0]
        engine.gate.set()
        engine.gate = asyncio.Event()
        (score,) = await asked
        assert conversations[0].messages is not None
    assert score["error"] is None

    slow = ScriptedEngine("canned")
    async with start(CONFIG, canned=slow) as running:
        slow.gate = asyncio.Event()
        waiting = asyncio.create_task(ask(running, "canned", GOOD, timeout_s=0.3))
        while not slow.calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)
        slow.gate.set()
        (late,) = await asyncio.wait_for(waiting, 30)
    assert late["error"]["code"] == "deadline_exceeded"


async def test_a_number_of_the_configuration_says_so(start: Start) -> None:
    async with start(CONFIG) as running:
        cut, whole = await ask(running, "watching", {**GOOD, "finish_reason": "length"}, GOOD)
    assert [term["raw_source"] for term in cut["terms"]] == ["on_unfinished"] * 2
    assert [term["raw_source"] for term in whole["terms"]] == ["model"] * 2


async def test_an_overload_says_when_to_come_back(start: Start) -> None:
    engine = ScriptedEngine("m")
    engine.raises = Overloaded("no room", retry_after_s=2.3)
    async with start(CONFIG, m=engine) as running:
        response = await running.http.post("/v1/score", json={"objective": "watching", "conversations": [GOOD]})
    assert (response.status_code, response.json()["code"]) == (429, "overloaded")
    assert response.headers["retry-after"] == "3"


async def test_a_label_of_5000_digits_is_a_bad_request(start: Start) -> None:
    async with start(CONFIG) as running:
        query = {"model": "m", "policy": "sft", "prompt": "p", "label": "9" * 5000}
        response = await running.http.get("/v1/baselines", params=query)
    assert response.status_code == 422
    assert "label" in response.json()["detail"]


async def test_an_unexpected_error_shows_its_request_id_and_nothing_else(start: Start) -> None:
    engine = ScriptedEngine("m")
    engine.raises = RuntimeError("a secret of the server")
    async with start(CONFIG, m=engine) as running:
        response = await running.http.post("/v1/score", json={"objective": "watching", "conversations": [GOOD]})
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert "secret" not in response.text
