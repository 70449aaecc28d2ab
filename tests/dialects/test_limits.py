"""What every dialect has from the base: limits, keys, metrics, and work that ends with its caller."""

import asyncio

import httpx
import pytest

from reward_service.api.app import routed_app
from reward_service.errors import Overloaded
from tests.access.configs import KEYS, MODEL, with_keys
from tests.access.serving import Wire, request, served, until
from tests.conftest import Start
from tests.dialects.conversations import Sample
from tests.dialects.test_cases import check_refused, each_trainer
from tests.dialects.trainers import SLIME, TRAINERS, Trainer

GOOD = Sample("1.5")


@pytest.mark.parametrize("trainer", [one for one in TRAINERS if one.batches], ids=lambda one: one.name)
async def test_too_many_at_once_are_refused(trainer: Trainer, start: Start) -> None:
    async with start(f"[limits]\nmax_request_conversations = 2\n{MODEL}") as running:
        for count, status in ((2, 200), (3, 413)):
            answer = await running.http.post(trainer.url("o"), json=trainer.body([GOOD] * count))
            assert answer.status_code == status
        check_refused(answer, 413, f"{trainer.required}: 3 in one request; at most 2")


@each_trainer
async def test_a_body_that_is_too_large_is_refused(trainer: Trainer, start: Start) -> None:
    async with start(f"[limits]\nmax_request_bytes = 1024\nmax_held_bytes = 2048\n{MODEL}") as running:
        answer = await running.http.post(trainer.url("o"), json=trainer.body([Sample("1" * 2000)]))
        check_refused(answer, 413, "max_request_bytes")


@each_trainer
async def test_a_body_of_a_hundred_fields_is_refused(trainer: Trainer, start: Start) -> None:
    async with start(MODEL) as running:
        body = {**trainer.body([GOOD]), **{f"field{i}": i for i in range(100)}}
        check_refused(await running.http.post(trainer.url("o"), json=body), 422, "no request has more than")


@each_trainer
async def test_a_key_is_asked_for_and_may_stand_in_the_url(trainer: Trainer, start: Start) -> None:
    async with start(with_keys()) as running:
        check_refused(await running.http.post(trainer.url("o"), json=trainer.body([GOOD])), 401)
        url = f"http://any:{KEYS['score']}@test{trainer.url('o')}"
        assert (await running.http.post(url, json=trainer.body([GOOD]))).status_code == 200
        url = f"http://any:{KEYS['metrics']}@test{trainer.url('o')}"
        check_refused(await running.http.post(url, json=trainer.body([GOOD])), 403)


@each_trainer
async def test_requests_and_errors_are_counted(trainer: Trainer, start: Start) -> None:
    async with start(MODEL) as running:
        for response in ("1.5", "nan"):
            await running.http.post(trainer.url("o"), json=trainer.body([Sample(response)]))
        metrics = (await running.http.get("/metrics")).text
    route = trainer.path
    assert f'reward_service_requests_total{{route="{route}",status="200"}} 1.0' in metrics
    assert f'reward_service_requests_total{{route="{route}",status="503"}} 1.0' in metrics
    assert 'reward_service_errors_total{code="not_finite"} 1.0' in metrics


@each_trainer
async def test_the_log_has_the_code_of_an_error_and_nothing_that_was_sent(
    trainer: Trainer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(MODEL) as running:
        await running.http.post(trainer.url("o"), json=trainer.body([Sample("nan")]))
    told = [record.getMessage() for record in caplog.records if "no reward for" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith(": not_finite")


@each_trainer
async def test_the_objective_may_say_how_texts_are_read(trainer: Trainer, start: Start) -> None:
    toml = MODEL.replace('aggregate = "mean"', 'aggregate = "mean"\ninput = "raw"')
    async with start(toml) as running:
        body, engine = trainer.body([GOOD]), running.engines["m"]
        await running.http.post(trainer.url("o"), json=body)
        assert [item.text for item in engine.calls[0]] == [GOOD.rendered]
        reparsed = await running.http.post(f"{trainer.url('o')}?input=reparse", json=body)
        assert (reparsed.headers["x-reward-input"], trainer.rewards(reparsed.json())) == ("reparse", [1.5])


@each_trainer
def test_work_ends_when_the_caller_hangs_up(trainer: Trainer) -> None:
    with served(MODEL) as service:
        service.shut()
        engine = service.engines["m"]
        with Wire(service.port) as wire:
            wire.send(request("POST", trainer.url("o"), trainer.body([GOOD])))
            until(lambda: len(engine.calls) == 1)
        until(lambda: engine.cancelled == 1)


def test_waiting_for_room_ends_when_the_caller_hangs_up() -> None:
    with served(MODEL) as service:
        engine = service.engines["m"]
        engine.raises = Overloaded("no room", retry_after_s=0.01)
        with Wire(service.port) as wire:
            wire.send(request("POST", SLIME.url("o"), SLIME.body([GOOD])))
            until(lambda: len(engine.calls) >= 3)
        until(lambda: 'status="499"' in httpx.get(f"{service.url}/metrics").text)
        calls = len(engine.calls)
        httpx.get(f"{service.url}/metrics")
        assert len(engine.calls) == calls


async def test_a_wait_that_the_time_does_not_allow_is_not_begun(start: Start) -> None:
    async with start(MODEL) as running:
        running.engines["m"].raises = Overloaded("no room", retry_after_s=100.0)
        answer = await running.http.post(SLIME.url("o"), json=SLIME.body([GOOD]))
        check_refused(answer, 429, "no room")
        assert answer.headers["retry-after"] == "100"


async def test_an_engine_that_takes_longer_than_the_limit_is_an_error(start: Start) -> None:
    async with start(f"[limits]\nrequest_timeout_s = 0.2\n{MODEL}") as running:
        running.engines["m"].gate = asyncio.Event()
        check_refused(await running.http.post(SLIME.url("o"), json=SLIME.body([GOOD])), 504, "0.2 s")


def test_each_route_is_documented_with_its_body_and_answer() -> None:
    paths = routed_app().openapi()["paths"]
    for trainer in TRAINERS:
        operation = paths[trainer.path]["post"]
        assert operation["requestBody"]["content"]["application/json"]["schema"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert {"objective", "input", "finish", "objective_hash"} <= {one["name"] for one in operation["parameters"]}
