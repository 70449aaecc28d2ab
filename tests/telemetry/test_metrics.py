"""What /metrics says, read as Prometheus reads it."""

import asyncio
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import httpx
import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from reward_service import __version__
from reward_service.errors import Overloaded, StoreUnavailable
from reward_service.stores import MemoryStore, ObservedStore, Values
from reward_service.telemetry import Metrics
from reward_service.telemetry.distributions import BOUNDS, COUNTED_AT_ONCE
from tests.conftest import Running, Start
from tests.scripted import ScriptedEngine
from tests.telemetry.watched import Watched

CONFIG = """
[store]
url = "memory://"
[[models]]
name = "helpful"
source = "org/helpful"
[[models]]
name = "harmless"
source = "org/harmless"
[[objectives]]
name = "both"
aggregate = "and"
[[objectives.terms]]
model = "helpful"
transform = "log_sigmoid"
[[objectives.terms]]
model = "harmless"
transform = "log_sigmoid_centered"
baseline = 0.5
"""
BASE_UNITS = ("_seconds", "_bytes", "_tokens", "_items")


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of that name and those labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


async def exposition(running: Running) -> str:
    return (await running.http.get("/metrics")).text


def asked(*responses: str) -> dict[str, object]:
    return {"conversations": [{"prompt": "p", "response": response} for response in responses]}


async def test_raw_transformed_and_reward_are_counted_in_their_buckets(start: Start) -> None:
    raw = np.random.default_rng(0).normal(0, 4, 300).round(3)
    async with start(CONFIG) as running:
        body = asked(*(str(number) for number in raw), "nan")
        scores = (await running.http.post("/v1/score", json=body)).json()["scores"]
        text = await exposition(running)
    rewards = [score["reward"] for score in scores if score["reward"] is not None]
    transformed = [score["terms"][1]["transformed"] for score in scores if score["reward"] is not None]
    assert len(rewards) == 300
    for bound in BOUNDS:
        le = f"{bound}"
        for numbers, name, term in (
            (raw, "raw", {"term": "helpful"}),
            (transformed, "transformed", {"term": "harmless"}),
            (rewards, "reward", {}),
        ):
            counted = value(text, f"reward_service_{name}_bucket", objective="both", le=le, **term)
            assert counted == sum(number <= bound for number in numbers), (name, bound)
    assert value(text, "reward_service_reward_bucket", objective="both", le="+Inf") == 300
    assert value(text, "reward_service_raw_count", objective="both", term="harmless") == 300


def test_numbers_are_counted_once_however_many_come_between_two_scrapes() -> None:
    metrics, counted = Metrics(), 0
    for size in (1, COUNTED_AT_ONCE, 700, 1, 700, 0, 3):
        numbers = np.zeros((3, size))
        numbers[0, :1] = np.nan
        metrics.on_numbers("both", ["helpful"], numbers)
        counted += size
        for text in (metrics.exposition().decode(), metrics.exposition().decode()) if size != 700 else ():
            assert value(text, "reward_service_reward_count", objective="both") == counted
    assert value(text, "reward_service_raw_count", objective="both", term="helpful") == counted - 6


async def test_each_stage_of_a_request_has_its_time(start: Start) -> None:
    async with start(CONFIG) as running:
        for _ in range(3):
            assert (await running.http.post("/v1/score", json=asked("1"))).status_code == 200
        text = await exposition(running)
    for stage in ("parse", "look_up", "compute", "queue", "combine", "serialise"):
        assert value(text, "reward_service_stage_seconds_count", stage=stage) == 3, stage
    assert value(text, "reward_service_request_seconds_count", route="/v1/score") == 3
    spent = value(text, "reward_service_stage_seconds_sum", stage="combine")
    assert 0 < spent < value(text, "reward_service_request_seconds_sum", route="/v1/score")


def test_a_real_service_times_admission_and_rendering_and_counts_the_tokens_of_its_batches(watched: Watched) -> None:
    url = watched.service.url
    usage = httpx.post(f"{url}/v1/score", json=asked("one", "two"), timeout=60).json()["usage"]
    text = httpx.get(f"{url}/metrics").text
    for stage in ("admit", "render", "score_cache", "queue", "compute"):
        assert value(text, "reward_service_stage_seconds_count", stage=stage) >= 1, stage
    golden_and_asked = [value(text, "reward_service_batch_tokens_sum", model=name) for name in ("helpful", "harmless")]
    assert sum(golden_and_asked) >= usage["tokens"]
    assert value(text, "reward_service_model_up", model="helpful") == 1
    assert value(text, "reward_service_store_up") == 1
    assert value(text, "reward_service_store_seconds_count", operation="get_many") >= 1
    assert value(text, "process_resident_memory_bytes") > 50e6
    assert_conventional(text)


async def test_models_objectives_and_the_build_are_named(start: Start) -> None:
    engine = ScriptedEngine("helpful")
    async with start(CONFIG, helpful=engine) as running:
        before = await exposition(running)
        engine.failure = "the device is gone"
        after = await exposition(running)
        recipe = (await running.http.get("/v1/objectives")).json()["objectives"][0]["objective_hash"]
    named = {"model": "helpful", "fingerprint": engine.card.fingerprint.value, "fingerprint_kind": "weights"}
    assert value(before, "reward_service_model_info", engine="scripted", device="cpu", dtype="float32", **named) == 1
    assert value(before, "reward_service_model_up", model="helpful") == 1
    assert value(after, "reward_service_model_up", model="helpful") == 0
    assert value(after, "reward_service_model_up", model="harmless") == 1
    assert value(after, "reward_service_objective_info", objective="both", objective_hash=recipe) == 1
    assert value(after, "reward_service_build_info", version=__version__) == 1


async def test_waits_told_to_callers_without_room_are_counted(start: Start) -> None:
    engine = ScriptedEngine("helpful")
    engine.raises = Overloaded("no room", 7.0)
    async with start(CONFIG, helpful=engine) as running:
        answer = await running.http.post("/v1/score", json=asked("1"))
        text = await exposition(running)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert value(text, "reward_service_retry_after_seconds_count") == 1
    assert value(text, "reward_service_retry_after_seconds_sum") == 7
    assert value(text, "reward_service_requests_total", route="/v1/score", status="429") == 1


async def test_requests_in_progress_are_those_that_wait(start: Start) -> None:
    engine = ScriptedEngine("helpful")
    engine.gate = asyncio.Event()
    async with start(CONFIG, helpful=engine) as running:
        waiting = [asyncio.create_task(running.http.post("/v1/score", json=asked("1"))) for _ in range(3)]
        while len(engine.calls) < 3:
            await asyncio.sleep(0)
        during = await exposition(running)
        engine.gate.set()
        await asyncio.gather(*waiting)
        after = await exposition(running)
    assert value(during, "reward_service_requests_in_progress") == 4  # the request for the metrics itself is one
    assert value(after, "reward_service_requests_in_progress") == 1


class Failing(MemoryStore):
    """Fails while told to."""

    fails = False

    async def get_many(self, keys: Sequence[str]) -> Values:
        if self.fails:
            raise StoreUnavailable("the store is gone")
        return await super().get_many(keys)


async def test_a_store_that_fails_is_down_until_a_call_works() -> None:
    store, metrics = Failing(), Metrics()
    observed = ObservedStore(store, metrics)

    def up() -> float:
        return value(metrics.exposition().decode(), "reward_service_store_up")

    assert math.isnan(up())
    await observed.put_many({"k": b"v"})
    assert up() == 1
    store.fails = True
    with pytest.raises(StoreUnavailable, match="gone"):
        await observed.get_many(["k"])
    assert up() == 0
    store.fails = False
    assert await observed.get_many(["k"]) == [b"v"]
    text = metrics.exposition().decode()
    assert up() == 1
    assert value(text, "reward_service_store_errors_total", operation="get_many") == 1
    assert value(text, "reward_service_store_seconds_count", operation="get_many") == 2


async def test_paths_that_are_no_route_and_texts_of_callers_make_no_labels(start: Start) -> None:
    async with start(CONFIG) as running:
        for i in range(20):
            assert (await running.http.get(f"/secret-{i}", params={"prompt": f"secret-{i}"})).status_code == 404
            await running.http.post("/v1/score", json={"objective": f"secret-{i}", "conversations": []})
        text = await exposition(running)
    assert "secret" not in text
    assert value(text, "reward_service_requests_total", route="unknown", status="404") == 20


def test_names_follow_the_conventions_of_prometheus() -> None:
    assert_conventional(Metrics().exposition().decode())


def assert_conventional(text: str) -> None:
    """Counters end in _total, histograms of time and size in their base unit; promtool agrees, where there is one."""
    for name, family in families(text).items():
        if not name.startswith("reward_service_") or name.endswith("_created"):
            continue
        assert family.documentation.endswith("."), name
        if family.type == "histogram" and name not in NUMBERS:
            assert name.endswith(BASE_UNITS), name
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith(("_total", "_created")), sample.name
            assert not any(len(label) > 200 for label in sample.labels.values()), sample
    for complaint in promtool(text):
        assert "_created" in complaint, complaint


NUMBERS = {f"reward_service_{name}" for name in ("raw", "transformed", "reward")}
"""These have no unit."""


def promtool(text: str) -> Iterator[str]:
    if (tool := shutil.which("promtool")) is None:
        return
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    yield from (done.stdout + done.stderr).splitlines()
