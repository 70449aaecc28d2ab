"""POST /v1/score through the public door."""

import asyncio
import math
from typing import Any

import httpx
import numpy as np
import pytest

from reward_service.errors import StoreUnavailable
from reward_service.stores import MemoryStore, Values
from tests.conftest import Start
from tests.scripted import ScriptedEngine

CONFIG = """
[server]
default_objective = "both"
[store]
url = "memory://"
[limits]
request_timeout_s = 60

[[models]]
name = "helpful"
source = "org/helpful"
[[models]]
name = "harmless"
source = "org/harmless"
temperature = 2.0

[[objectives]]
name = "both"
aggregate = "and"
[[objectives.terms]]
model = "helpful"
transform = "log_sigmoid_centered"
baseline = { policy = "sft", min_references = 2 }
[[objectives.terms]]
model = "harmless"
transform = "log_sigmoid_centered"
baseline = { response = "0.5" }

[[objectives]]
name = "raw"
aggregate = "mean"
[[objectives.terms]]
model = "helpful"
transform = "identity"
[[objectives.terms]]
model = "harmless"
name = "watched"
transform = "centered"
weight = 0.0
baseline = { policy = "sft", min_references = 2 }
"""
REFERENCES = {"model": "helpful", "policy": "sft", "entries": [{"prompt": "p", "rewards": [0.0, 1.0, 2.0]}]}


def conversation(response: str, prompt: str = "p", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, **more}


async def test_an_answer_shows_how_each_reward_came_about(start: Start) -> None:
    async with start(CONFIG) as running:
        await running.http.put("/v1/baselines", json=REFERENCES)
        answer = (await running.http.post("/v1/score", json={"conversations": [conversation("1.5", id="a")]})).json()
    score = answer["scores"][0]
    helpful, harmless = score["terms"]
    assert (answer["objective"], score["id"], score["error"]) == ("both", "a", None)
    assert helpful["baseline_source"] == "prompt"
    assert helpful["reference"] | {"std": None, "standard_error": None} == {
        "policy": "sft", "revision": 1, "count": 3, "mean": 1.0, "std": None, "quantile": 0.85, "method": "normal",
        "standard_error": None, "share_below": None, "rewards": None,
    }  # fmt: skip
    assert helpful["baseline"] == pytest.approx(1.0 + 1.0364333894937898)
    assert helpful["transformed"] == pytest.approx(-math.log1p(math.exp(helpful["baseline"] - 1.5)))
    assert (harmless["baseline"], harmless["baseline_source"], harmless["temperature"]) == (0.5, "response", 2.0)
    assert harmless["transformed"] == pytest.approx(-math.log1p(math.exp((0.5 - 1.5) / 2.0)))
    assert score["reward"] == pytest.approx(helpful["transformed"] + harmless["transformed"])
    assert answer["baselines"] == {"sft": {"policy_revision": None, "frozen": False, "revision": 1}}
    assert set(answer["models"]) == {"helpful", "harmless"}
    assert answer["usage"]["tokens"] == 30
    assert answer["recipe"]["aggregate"] == "and"


async def test_the_three_forms_of_a_conversation_and_its_prompt_are_one(start: Start) -> None:
    system = {"role": "system", "content": "s"}
    entries = [
        {"prompt": "p", "rewards": [1, 2]},
        {"prompt": [system, {"role": "user", "content": "p"}], "rewards": [5, 6]},
    ]
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "1.5"}]
    forms = [
        conversation("1.5"),
        {"prompt": messages[:1], "response": "1.5"},
        {"messages": messages},
        {"messages": [system, *messages]},
    ]
    async with start(CONFIG) as running:
        await running.http.put("/v1/baselines", json={"model": "helpful", "policy": "sft", "entries": entries})
        scores = (await running.http.post("/v1/score", json={"conversations": forms})).json()["scores"]
    assert [s["terms"][0]["reference"]["mean"] for s in scores] == [1.5, 1.5, 1.5, 5.5]
    assert scores[0]["reward"] == scores[1]["reward"] == scores[2]["reward"] != scores[3]["reward"]


async def test_rendered_text_is_scored_where_no_prompt_is_needed(start: Start) -> None:
    async with start(CONFIG) as running:
        body = {"objective": "raw", "conversations": [{"text": "0.25"}]}
        score = (await running.http.post("/v1/score", json=body)).json()["scores"][0]
    assert score["reward"] == 0.25
    assert score["error"] is None
    assert score["terms"][1]["error"]["code"] == "prompt_required"


async def test_each_term_reads_its_own_label_by_index_or_name(start: Start) -> None:
    terms = "".join(
        f'[[objectives.terms]]\nname = "t{i}"\nmodel = "m"\nlabel = {label}\ntransform = "identity"\n'
        for i, label in enumerate((0, 2, '"safety"'))
    )
    config = (
        f'[store]\nurl = "memory://"\n[[models]]\nname = "m"\nsource = "org/m"\n[[objectives]]\nname = "o"\n{{}}{terms}'
    )
    engine = ScriptedEngine("m", ("quality", "safety", "tone"))
    async with start(config.format('aggregate = "weighted_sum"\n'), m=engine) as running:
        body = {"conversations": [conversation("1.0 20.0 300.0")]}
        (score,) = (await running.http.post("/v1/score", json=body)).json()["scores"]
    assert [(term["label"], term["raw"]) for term in score["terms"]] == [(0, 1.0), (2, 300.0), ("safety", 20.0)]
    assert score["reward"] == 321.0


async def test_a_watched_term_is_shown_and_cannot_fail_the_reward(start: Start) -> None:
    async with start(CONFIG) as running:
        body = {"objective": "raw", "conversations": [conversation("2.0")]}
        score = (await running.http.post("/v1/score", json=body)).json()["scores"][0]
    watched = score["terms"][1]
    assert score["reward"] == 2.0
    assert (watched["raw"], watched["transformed"], watched["error"]["code"]) == (2.0, None, "baseline_missing")


async def test_references_of_the_request_take_the_place_of_stored_ones(start: Start) -> None:
    given = [{"helpful": {"rewards": [0.1, 0.7, 1.9]}}, {"helpful": {"responses": ["0.1", "0.7", "1.9"]}}]
    async with start(CONFIG) as running:
        body = {"conversations": [conversation("1.0", references=one) for one in given]}
        scores = (await running.http.post("/v1/score?references=true", json=body)).json()["scores"]
    first, second = (s["terms"][0] for s in scores)
    assert first["baseline_source"] == second["baseline_source"] == "request"
    assert first["baseline"] == second["baseline"]
    assert first["reference"]["rewards"] == second["reference"]["rewards"] == [0.1, 0.7, 1.9]


async def test_many_that_miss_one_canned_response_score_it_once(start: Start) -> None:
    engine = ScriptedEngine("harmless")
    async with start(CONFIG, harmless=engine) as running:
        await running.http.put("/v1/baselines", json=REFERENCES)
        bodies = [{"conversations": [conversation(str(i))]} for i in range(50)]
        answers = await asyncio.gather(*(running.http.post("/v1/score", json=body) for body in bodies))
    assert {a.json()["scores"][0]["terms"][1]["baseline"] for a in answers} == {0.5}
    canned = [item for call in engine.calls for item in call if item.messages and item.messages[-1]["content"] == "0.5"]
    assert len(canned) == 1


async def test_a_run_can_be_pinned_to_what_the_first_answer_named(start: Start) -> None:
    async with start(CONFIG) as running:
        await running.http.put("/v1/baselines", json=REFERENCES)
        body: dict[str, Any] = {"conversations": [conversation("1.0")]}
        answer = (await running.http.post("/v1/score", json=body)).json()
        body["expect"] = {
            "objective_hash": answer["objective_hash"],
            "models": {name: used["fingerprint"] for name, used in answer["models"].items()},
            "baselines": {name: used["revision"] for name, used in answer["baselines"].items()},
        }
        assert (await running.http.post("/v1/score", json=body)).status_code == 200
        await running.http.put("/v1/baselines", json={**REFERENCES, "mode": "merge"})
        changed = await running.http.post("/v1/score", json=body)
    assert changed.status_code == 409
    assert "expect.baselines.sft: revision 1 expected, it is 2 now" in changed.json()["detail"]


async def test_no_conversations_are_an_empty_answer(start: Start) -> None:
    async with start(CONFIG) as running:
        answer = await running.http.post("/v1/score", json={"conversations": []})
    assert answer.status_code == 200
    assert answer.json()["scores"] == []


class BrokenStore(MemoryStore):
    """A store that can be told to fail."""

    broken = False

    async def get_many(self, keys: Any) -> Values:
        if self.broken:
            raise StoreUnavailable("the store does not answer")
        return await super().get_many(keys)

    async def ping(self) -> None:
        if self.broken:
            raise StoreUnavailable("the store does not answer")


async def test_a_failed_store_is_not_a_missing_baseline_and_does_not_stop_raw_scoring(start: Start) -> None:
    store = BrokenStore()
    given = {"helpful": {"rewards": [1.0, 2.0]}}
    async with start(CONFIG, store=store) as running:
        await running.http.put("/v1/baselines", json=REFERENCES)
        store.broken = True
        request = {"conversations": [conversation("1"), conversation("1", references=given)]}
        both = await running.http.post("/v1/score", json=request)
        raw = await running.http.post("/v1/score", json={"objective": "raw", "conversations": [conversation("1")]})
        ready = await running.http.get("/ready")
        store.broken = False
        undisturbed = (await running.http.post("/v1/score", json=request)).json()["scores"]
    codes = [[term["error"] and term["error"]["code"] for term in s["terms"]] for s in both.json()["scores"]]
    assert codes == [["store_unavailable", None], [None, None]]  # a canned response is scored without the store
    assert [s["reward"] for s in both.json()["scores"]] == [None, undisturbed[1]["reward"]]
    assert raw.json()["scores"][0]["reward"] == 1.0
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "models": {"helpful": "ready", "harmless": "ready"},
        "store": "the store does not answer",
    }


async def test_a_caller_that_hangs_up_takes_its_work_along(start: Start) -> None:
    engine = ScriptedEngine("helpful")
    engine.gate = asyncio.Event()
    async with start(CONFIG, helpful=engine) as running:
        app = running.http._transport.app  # type: ignore[attr-defined]
        body = b'{"objective": "raw", "conversations": [{"text": "1"}]}'
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
        request = httpx.Request("POST", "http://test/v1/score", headers={"content-type": "application/json"})
        scope = {
            "type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"",
            "headers": [(k.lower(), v) for k, v in request.headers.raw], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        serving = asyncio.create_task(app(scope, inbox.get, send))
        while not engine.calls:
            await asyncio.sleep(0)
        inbox.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(serving, 30)
    assert engine.cancelled == 1
    assert sent[0]["status"] == 499


async def test_metrics_count_requests_errors_and_baseline_sources(start: Start) -> None:
    async with start(CONFIG) as running:
        await running.http.put("/v1/baselines", json=REFERENCES)
        await running.http.post("/v1/score", json={"conversations": [conversation("1"), conversation("1", "q"), {}]})
        text = (await running.http.get("/metrics")).text
    assert 'reward_service_requests_total{route="/v1/score",status="200"} 1.0' in text
    assert 'reward_service_conversations_total{objective="both"} 3.0' in text
    assert 'reward_service_errors_total{code="baseline_missing"} 1.0' in text
    assert 'reward_service_errors_total{code="invalid_request"} 1.0' in text
    assert 'reward_service_baselines_total{source="prompt"} 1.0' in text
    assert 'reward_service_baselines_total{source="response"} 2.0' in text


async def test_a_request_keeps_the_id_that_its_caller_gave(start: Start) -> None:
    async with start(CONFIG) as running:
        given = await running.http.get("/health", headers={"x-request-id": "run-7/step-3"})
        odd = await running.http.get("/health", headers={"x-request-id": "a b\tc"})
        made = await running.http.get("/health")
    assert given.headers["x-request-id"] == "run-7/step-3"
    assert len(odd.headers["x-request-id"]) == len(made.headers["x-request-id"]) == 32
    assert made.json() == {"status": "ok"}


async def test_models_and_objectives_are_described(start: Start) -> None:
    async with start(CONFIG) as running:
        models = (await running.http.get("/v1/models")).json()["models"]
        one = (await running.http.get("/v1/models/harmless")).json()
        objectives = (await running.http.get("/v1/objectives")).json()["objectives"]
        answer = (await running.http.post("/v1/score", json={"objective": "raw", "conversations": []})).json()
    assert [m["name"] for m in models] == ["helpful", "harmless"]
    assert one == models[1]
    assert (one["temperature"], one["labels"], one["source"]) == (2.0, ["LABEL_0"], "org/harmless")
    assert [(o["name"], o["default"]) for o in objectives] == [("both", True), ("raw", False)]
    assert answer["objective_hash"] == objectives[1]["objective_hash"]
    assert answer["recipe"] == objectives[1]["recipe"]


async def test_the_baseline_is_numpys_quantile_and_survives_in_answers(start: Start) -> None:
    rewards = np.random.default_rng(1).normal(size=64).tolist()
    async with start(CONFIG) as running:
        body = {"model": "helpful", "policy": "sft", "entries": [{"prompt": "p", "rewards": rewards}]}
        assert (await running.http.put("/v1/baselines", json=body)).json()["written"] == 1
        params = {"model": "helpful", "policy": "sft", "prompt": "p"}
        got = (await running.http.get("/v1/baselines", params=params)).json()
        score = (await running.http.post("/v1/score", json={"conversations": [conversation("1")]})).json()["scores"][0]
    assert got["value"] == score["terms"][0]["baseline"] == np.quantile(rewards, 0.85)
    assert (got["count"], got["method"], got["mean"]) == (64, "empirical", pytest.approx(np.mean(rewards)))
