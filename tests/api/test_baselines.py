"""The baseline endpoints through the public door."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import Running, Start
from tests.scripted import ScriptedEngine

MODEL = """
[[models]]
name = "m"
source = "org/m"
"""
MEMORY = '[store]\nurl = "memory://"\n' + MODEL


def put(rewards: Any, prompt: Any = "p", **more: Any) -> dict[str, Any]:
    return {"model": "m", "policy": "sft", "entries": [{"prompt": prompt, "rewards": rewards}], **more}


async def written(running: Running, body: dict[str, Any]) -> Any:
    response = await running.http.put("/v1/baselines", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def read(running: Running, prompt: str = "p", **params: Any) -> Any:
    query = {"model": "m", "policy": "sft", "prompt": prompt, **params}
    return (await running.http.get("/v1/baselines", params=query)).json()


async def test_sixty_four_rewards_give_numpys_quantile_after_a_restart_too(start: Start, tmp_path: Path) -> None:
    config = f'[store]\nurl = "sqlite:///{tmp_path}/store.db"\n{MODEL}'
    rewards = np.random.default_rng(0).normal(size=64).tolist()
    async with start(config) as running:
        await written(running, put(rewards))
        before = await read(running)
    async with start(config) as restarted:
        after = await read(restarted)
    assert before == after
    assert after["value"] == np.quantile(rewards, 0.85)
    assert after["count"] == 64


async def test_shuffled_and_repeated_merges_leave_the_rows_of_one_put(start: Start) -> None:
    rng = np.random.default_rng(3)
    rewards, ids = rng.normal(size=10_000), [f"run/{i}" for i in range(10_000)]
    parts = [
        {"prompt": "p", "rewards": rewards[i : i + 100].tolist(), "draw_ids": ids[i : i + 100]}
        for i in range(0, 10_000, 100)
    ]
    order = [*rng.permutation(100), *rng.permutation(100)[:50]]
    async with start(MEMORY) as running:
        whole = {"prompt": "whole", "rewards": rewards.tolist(), "draw_ids": ids}
        await written(running, {"model": "m", "policy": "sft", "entries": [whole]})
        for place in order:
            await written(running, {"model": "m", "policy": "sft", "mode": "merge", "entries": [parts[place]]})
        one, many = await read(running, "whole"), await read(running)
    assert one["count"] == many["count"] == 256
    assert {**one, "revision": None} == {**many, "revision": None}


async def test_responses_are_scored_and_every_label_is_kept(start: Start) -> None:
    engine = ScriptedEngine("m", ("quality", "safety"))
    async with start(MEMORY, m=engine) as running:
        entries = [{"prompt": "p", "responses": ["1 10", "2 20", "3 30"]}]
        await written(running, {"model": "m", "policy": "sft", "entries": entries})
        quality, safety = await read(running, method="mean"), await read(running, method="mean", label="safety")
    assert (quality["value"], safety["value"], safety["quantile"]) == (2.0, 20.0, None)


async def test_the_same_key_sent_again_changes_nothing(start: Start) -> None:
    async with start(MEMORY) as running:
        first = await written(running, put([1, 2], idempotency_key="k"))
        second = await written(running, put([5, 6], idempotency_key="l"))
        again = await written(running, put([1, 2], idempotency_key="k"))
        value = (await read(running, method="mean"))["value"]
    assert [r["written"] for r in (first, second, again)] == [1, 1, 0]
    assert again["unchanged"] == 1
    assert again["revision"] == second["revision"]
    assert value == 5.5


async def test_a_policy_name_stands_for_one_revision_and_can_be_frozen(start: Start) -> None:
    async with start(MEMORY) as running:
        await written(running, put([1.0], policy_revision="v1"))
        other = await running.http.put("/v1/baselines", json=put([2.0], policy_revision="v2"))
        frozen = await running.http.post("/v1/baselines/freeze", json={"policy": "sft"})
        refused = await running.http.put("/v1/baselines", json=put([2.0], policy_revision="v1"))
        deleted = await running.http.delete("/v1/baselines", params={"model": "m", "policy": "sft"})
        state = await read(running)
        await running.http.post("/v1/baselines/freeze", json={"policy": "sft", "frozen": False})
        thawed = await running.http.put("/v1/baselines", json=put([2.0], policy_revision="v1"))
    assert (other.status_code, other.json()["code"]) == (409, "policy_revision_conflict")
    assert "'v1'" in other.json()["detail"]
    assert "'v2'" in other.json()["detail"]
    assert frozen.json() == {"policy": "sft", "policy_revision": "v1", "frozen": True, "revision": 1}
    assert [(r.status_code, r.json()["code"]) for r in (refused, deleted)] == [(409, "policy_frozen")] * 2
    assert (state["frozen"], state["policy_revision"]) == (True, "v1")
    assert thawed.status_code == 200


async def test_a_query_answers_many_prompts_in_order(start: Start) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    async with start(MEMORY) as running:
        await written(running, put([1.0, 2.0], turns))
        await written(running, put([3.0], "p"))
        body = {"model": "m", "policy": "sft", "prompts": ["p", "unknown", turns], "method": "mean"}
        found = (await running.http.post("/v1/baselines/query", json=body)).json()["baselines"]
    assert [(one["count"], one["value"]) for one in found] == [(1, 3.0), (0, None), (2, 1.5)]


async def test_deleted_references_are_gone(start: Start) -> None:
    async with start(MEMORY) as running:
        for prompt in ("p", "q", "r"):
            await written(running, put([1.0], prompt))
        query = {"model": "m", "policy": "sft"}
        one = (await running.http.delete("/v1/baselines", params={**query, "prompt": "p"})).json()
        rest = (await running.http.delete("/v1/baselines", params=query)).json()
        gone = await running.http.get("/v1/baselines", params={**query, "prompt": "q"})
    assert (one["deleted"], rest["deleted"], gone.status_code) == (1, 2, 404)


async def test_the_global_snapshot_stays_as_it_is_until_rebuilt(start: Start) -> None:
    body = {"model": "m", "policy": "sft"}
    async with start(MEMORY) as running:
        entries = [{"prompt": str(i), "rewards": [float(i)] * 8} for i in range(100)]
        await written(running, {**body, "entries": entries})
        first = (await running.http.post("/v1/baselines/global", json=body)).json()
        await written(running, put([1000.0] * 8, "new"))
        second = (await running.http.post("/v1/baselines/global", json=body)).json()
    assert (first["prompts"], first["count"]) == (100, 800)
    assert (second["prompts"], second["count"]) == (101, 808)
    assert second["revision"] > first["revision"]
