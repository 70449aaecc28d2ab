"""The deployment as a whole, without containers: the Dockerfile's own install, two replicas on a Redis, the balancer
and Prometheus, each with its own file. Takes minutes and fetches every package anew."""

import asyncio
import hashlib
import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_service.client import AsyncClient
from reward_service.demo import conversations
from tests.deploy import running
from tests.deploy.running import Part, free_port
from tests.deploy.test_watching import queries
from tests.telemetry.test_metrics import families, promtool

KEYS = {"TRAINER": "trainer-key", "OPERATOR": "operator-key", "METRICS": "metrics-key"}
PASSWORD = "a-redis-password"
RANKS, ROUNDS = 16, 12
NEEDED = ("redis-server", "haproxy")


@dataclass(frozen=True)
class Deployment:
    """What runs; `url` is the balancer's."""

    url: str
    inside: str
    replicas: list[Part]
    ports: list[int]
    redis: Part
    balancer: Part
    folder: Path

    @property
    def trainer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {KEYS['TRAINER']}"}

    def metrics(self, replica: int) -> str:
        """Of one replica."""
        headers = {"authorization": f"Bearer {KEYS['METRICS']}"}
        answer = httpx.get(f"http://127.0.0.1:{self.ports[replica]}/metrics", headers=headers)
        return answer.raise_for_status().text

    def served(self) -> list[float]:
        """The score requests that each replica has answered with 200."""
        name = r'reward_service_requests_total\{route="/v1/score",status="200"\} (\S+)'
        return [sum(map(float, re.findall(name, self.metrics(i)))) for i in range(2)]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    for tool in NEEDED:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("deployment")
    venv = running.build(folder / "image", {"VARIANT": "cpu"})
    ports, redis_port, public, inside = [free_port(), free_port()], free_port(), free_port(), free_port()
    environment = {f"{name}_KEY_SHA256": hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    environment |= {"REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{redis_port}/0", "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        redis = stack.enter_context(running.redis(folder, redis_port, PASSWORD))
        replicas = [stack.enter_context(running.replica(venv, folder, port, environment)) for port in ports]
        balancer = stack.enter_context(running.balancer(public, inside, ports))
        yield Deployment(
            f"http://127.0.0.1:{public}", f"http://127.0.0.1:{inside}", replicas, ports, redis, balancer, folder
        )


def asked() -> list[dict[str, Any]]:
    return [{"id": one.id, "prompt": one.prompt, "response": one.response} for one in conversations()]


@pytest.mark.timeout(1200)
def test_the_first_request_scores_with_both_models(deployment: Deployment) -> None:
    body = {"conversations": asked()}
    url = f"{deployment.url}/v1/score"
    assert httpx.post(url, json=body).status_code == 401
    answer = httpx.post(url, json=body, headers={**deployment.trainer, "x-request-id": "first"}, timeout=60)
    scores = answer.raise_for_status().json()["scores"]
    assert answer.headers["x-request-id"] == "first"
    assert all(score["reward"] < 0 for score in scores)
    assert {term["baseline_source"] for score in scores for term in score["terms"]} == {"response"}
    assert httpx.get(f"{deployment.url}/metrics").status_code == 404
    assert any("method=POST path=/v1/score status=200" in line for line in deployment.balancer.lines)


def test_both_replicas_are_used_and_agree(deployment: Deployment) -> None:
    before = deployment.served()
    rewards = set()
    for _ in range(8):
        answer = httpx.post(
            f"{deployment.url}/v1/score",
            json={"conversations": asked(), "cache": False},
            headers=deployment.trainer,
            timeout=60,
        )
        rewards.add(tuple(round(score["reward"], 4) for score in answer.raise_for_status().json()["scores"]))
    used = [after - was for after, was in zip(deployment.served(), before, strict=True)]
    assert len(rewards) == 1
    assert sum(used) == 8
    assert min(used) > 0


async def test_a_replica_that_is_told_to_stop_loses_no_request(deployment: Deployment) -> None:
    """No retries in the client: the balancer alone hides the stop."""
    async with httpx.AsyncClient(headers=deployment.trainer, timeout=60) as http:

        async def rank(number: int) -> list[int]:
            body = {"conversations": asked()[number % 4 :], "cache": False}
            return [(await http.post(f"{deployment.url}/v1/score", json=body)).status_code for _ in range(ROUNDS)]

        ranks = [asyncio.create_task(rank(number)) for number in range(RANKS)]
        await asyncio.sleep(1.0)
        code = await asyncio.to_thread(deployment.replicas[0].ended_by, signal.SIGTERM)
        statuses = [status for one in await asyncio.gather(*ranks) for status in one]
    await asyncio.to_thread(deployment.replicas[0].start)
    assert code == 0
    assert statuses == [200] * RANKS * ROUNDS


async def test_a_replica_that_dies_costs_the_client_a_retry_and_no_reward(deployment: Deployment) -> None:
    async with AsyncClient(deployment.url, api_key=KEYS["TRAINER"]) as client:

        async def rank(number: int) -> list[float | None]:
            return [(await client.score(asked()[number % 4 :], cache=False)).rewards[-1] for _ in range(ROUNDS)]

        ranks = [asyncio.create_task(rank(number)) for number in range(RANKS)]
        await asyncio.sleep(1.0)
        await asyncio.to_thread(deployment.replicas[1].ended_by, signal.SIGKILL)
        rewards = [reward for one in await asyncio.gather(*ranks) for reward in one]
    await asyncio.to_thread(deployment.replicas[1].start)
    assert len(rewards) == RANKS * ROUNDS
    assert {round(float(reward), 4) for reward in rewards if reward is not None} == {round(float(rewards[0] or 0), 4)}
    assert None not in rewards


def test_each_key_opens_its_own_routes_only(deployment: Deployment) -> None:
    replica = f"http://127.0.0.1:{deployment.ports[0]}"

    def status(path: str, key: str) -> int:
        return httpx.get(f"{replica}{path}", headers={"authorization": f"Bearer {KEYS[key]}"}).status_code

    assert (status("/metrics", "METRICS"), status("/metrics", "TRAINER")) == (200, 403)
    assert (status("/v1/objectives", "TRAINER"), status("/v1/baselines?model=helpful", "METRICS")) == (200, 403)


def test_lines_are_json_and_no_key_and_no_text_is_among_them(deployment: Deployment) -> None:
    text = "".join(line for part in deployment.replicas for line in part.lines)
    assert all(json.loads(line)["level"] in ("info", "warning") for line in text.splitlines())
    everything = text + "".join([*deployment.balancer.lines, *deployment.redis.lines])
    assert not [secret for secret in (*KEYS.values(), PASSWORD) if secret in everything]
    assert not any(one["response"] in everything for one in asked())


def test_promtool_takes_the_metrics_of_a_replica_under_load(deployment: Deployment) -> None:
    text = deployment.metrics(0)
    assert {"reward_service_raw", "reward_service_stage_seconds"} <= families(text).keys()
    assert [complaint for complaint in promtool(text) if "_created" not in complaint] == []


def test_prometheus_reads_both_replicas_and_answers_every_query_of_the_dashboard(deployment: Deployment) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    port, inside = free_port(), int(deployment.inside.rsplit(":", 1)[1])
    with running.prometheus(deployment.folder, port, KEYS["METRICS"], deployment.ports, inside):
        url = f"http://127.0.0.1:{port}/api/v1/query"

        def result(query: str) -> list[dict[str, Any]]:
            answer = httpx.get(url, params={"query": query}).json()
            assert answer["status"] == "success", (query, answer)
            found: list[dict[str, Any]] = answer["data"]["result"]
            return found

        until = time.monotonic() + 60
        while len(result("up == 1")) < 3 and time.monotonic() < until:
            httpx.post(
                f"{deployment.url}/v1/score", json={"conversations": asked()}, headers=deployment.trainer, timeout=60
            )
            time.sleep(1)
        assert len(result("up == 1")) == 3
        time.sleep(12)
        empty = []
        for place, query in queries():
            if query.startswith("label_values"):
                continue
            query = query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$objective", ".*")
            if not result(query):
                empty.append(place)
        assert set(empty) <= set(QUIET)


QUIET = (
    *("BaselinesMissing", "FingerprintsDiffer", "ModelDown", "NoReplica", "ReplicaDown", "ServerErrors", "StoreDown"),
    *("Errors by code", "Failed calls to the store", "Overloaded", "StoreFailing"),
)
"""Queries that may have nothing to show while all is well."""
