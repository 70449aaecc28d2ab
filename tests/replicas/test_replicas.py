"""Two replicas on one Redis: what one writes the other sees at once, and what both miss is computed once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Running, Start
from tests.redis_server import RedisServer
from tests.replicas.conversations import CANNED, CONFIG, RAW, asked, baseline, log_sigmoid, prompt, written
from tests.scripted import ScriptedEngine


@pytest.fixture
async def replicas(start: Start, redis_server: RedisServer) -> AsyncIterator[tuple[Running, Running]]:
    config = CONFIG.format(url=redis_server.url)
    async with start(config) as here, start(config) as there:
        yield here, there


async def score(replica: Running, **request: Any) -> list[dict[str, Any]]:
    answer = await replica.http.post("/v1/score", json=request)
    assert answer.status_code == 200, answer.text
    scores: list[dict[str, Any]] = answer.json()["scores"]
    return scores


async def done(replica: Running, method: str, path: str, **how: Any) -> dict[str, Any]:
    answer = await replica.http.request(method, path, **how)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_put_a_delete_and_a_freeze_at_one_replica_are_seen_by_the_other_at_once(
    replicas: tuple[Running, Running],
) -> None:
    here, there = replicas
    request = asked("stored", prompt(3), prompt(4))
    for one in (here, there):  # now both remember that there is nothing
        assert [score["error"]["code"] for score in await score(one, **request)] == ["baseline_missing"] * 2
    await done(here, "PUT", "/v1/baselines", json=written())
    for _ in range(2):
        expected = [pytest.approx(log_sigmoid(RAW - baseline(i))) for i in (3, 4)]
        assert [one["reward"] for one in await score(there, **request)] == expected
    entry = {"prompt": prompt(3), "rewards": [9.0] * 16}
    for one, number in ((there, 9.0), (here, 8.0)):
        await done(one, "PUT", "/v1/baselines", json=written(entries=[{**entry, "rewards": [number] * 16}]))
        for replica in replicas:
            first, second = await score(replica, **request)
            assert first["reward"] == pytest.approx(log_sigmoid(RAW - number))
            assert second["reward"] == pytest.approx(log_sigmoid(RAW - baseline(4)))
    await done(here, "POST", "/v1/baselines/freeze", json={"policy": "sft", "frozen": True})
    refused = await there.http.put("/v1/baselines", json=written())
    assert (refused.status_code, refused.json()["code"]) == (409, "policy_frozen")
    await done(there, "POST", "/v1/baselines/freeze", json={"policy": "sft", "frozen": False})
    await done(there, "DELETE", "/v1/baselines", params={"policy": "sft"})
    assert [score["error"]["code"] for score in await score(here, **request)] == ["baseline_missing"] * 2


async def test_a_rebuilt_global_snapshot_is_seen_by_the_other_replica_at_once(
    start: Start, redis_server: RedisServer
) -> None:
    config = CONFIG.format(url=redis_server.url).replace('method = "mean"', 'method = "mean", on_missing = "global"')
    async with start(config) as here, start(config) as there:
        for number in (1.0, 2.0):
            entries = [{"prompt": f"other {i}", "rewards": [number] * 8} for i in range(100)]
            await done(here, "PUT", "/v1/baselines", json=written(entries=entries))
            await done(here, "POST", "/v1/baselines/global", json={"model": "helpful", "policy": "sft"})
            (scored,) = await score(there, **asked("stored", "never seen"))
            assert scored["terms"][0]["baseline_source"] == "global"
            assert scored["reward"] == pytest.approx(log_sigmoid(RAW - number))


async def test_200_requests_at_two_replicas_for_one_missing_canned_baseline_compute_it_once(
    replicas: tuple[Running, Running],
) -> None:
    request = asked("canned", "a prompt that nobody asked about before")
    gates = [asyncio.Event(), asyncio.Event()]
    engines = [replica.engines["helpful"] for replica in replicas]
    for engine, gate in zip(engines, gates, strict=True):
        engine.gate = gate
    requests = [asyncio.create_task(score(replica, **request)) for _ in range(100) for replica in replicas]
    async with asyncio.timeout(30):
        while canned_items(*engines) == 0:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    for gate in gates:
        gate.set()
    answers = await asyncio.gather(*requests)
    assert [scores[0]["terms"][0]["baseline"] for scores in answers] == [CANNED] * 200
    assert [scores[0]["reward"] for scores in answers] == [pytest.approx(log_sigmoid(RAW - CANNED))] * 200
    assert canned_items(*engines) == 1


def canned_items(*engines: ScriptedEngine) -> int:
    """How many canned responses the engines were asked to score."""
    items = [item for engine in engines for call in engine.calls for item in call]
    return sum(item.messages is not None and item.messages[-1]["content"] == str(CANNED) for item in items)


async def test_the_writes_of_many_clients_at_both_replicas_are_all_there(replicas: tuple[Running, Running]) -> None:
    def part(i: int) -> dict[str, Any]:
        entries = [{"prompt": "p", "rewards": [float(i)], "draw_ids": [f"d{i}"]}]
        return written(entries=entries, mode="merge", idempotency_key=f"k{i}")

    writes = [done(replicas[i % 2], "PUT", "/v1/baselines", json=part(i)) for i in range(60)]
    revisions = {one["revision"] for one in await asyncio.gather(*writes)}
    assert revisions == set(range(1, 61))
    query = {"model": "helpful", "policy": "sft", "prompt": "p"}
    for replica in replicas:
        read = await done(replica, "GET", "/v1/baselines", params=query)
        assert (read["count"], read["mean"]) == (60, 29.5)
