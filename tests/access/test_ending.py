"""A server that ends finishes what it accepted, and nothing keeps it from ending."""

import asyncio
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.access.configs import MODEL, with_limits
from tests.access.serving import Served, Wire, request, score_request, served, until
from tests.process import ServiceProcess, demo_toml
from tests.telemetry.test_metrics import value

WORDS = " ".join(f"word{i}" for i in range(60))
CALLERS = 24


def test_what_was_accepted_is_answered_and_nothing_else_holds_the_server() -> None:
    with served(with_limits(header_timeout_s=30, body_timeout_s=30)) as service:
        service.shut()
        with Wire(service.port) as busy, Wire(service.port) as idle, Wire(service.port) as slow:
            idle.send(request("GET", "/health"))
            assert idle.reply().status == 200
            slow.send(b"GET /health HTTP/1.1\r\nhost: te")
            busy.send(score_request())
            until(lambda: len(service.engines["m"].calls) == 1)
            busy.send(request("GET", "/ready"))
            service.end()
            until(lambda: _refused(service.port))
            assert idle.closed()
            assert slow.closed()
            service.open()
            assert busy.reply().json["scores"][0]["reward"] == 1.5
            ready = busy.reply()
            assert (ready.status, ready.json["status"]) == (503, "not_ready")
            assert busy.closed()
        assert service.ended()


def _refused(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_no_request_that_reached_an_engine_goes_unanswered() -> None:
    """Callers go on with new connections until none is taken; what they got is what the engine was asked."""
    rewards: list[float] = []

    def call(service: Served) -> None:
        while True:
            try:
                with Wire(service.port) as wire:
                    wire.send(score_request())
                    rewards.append(wire.reply().json["scores"][0]["reward"])
            except (OSError, IndexError):  # refused, or closed before its request was read
                return

    with served(MODEL) as service:
        callers = [threading.Thread(target=call, args=(service,)) for _ in range(8)]
        for caller in callers:
            caller.start()
        until(lambda: len(rewards) > 100)
        service.end()
        for caller in callers:
            caller.join()
        assert service.ended()
        assert len(service.engines["m"].calls) == len(rewards)


async def test_sigterm_under_load_loses_no_accepted_request(tmp_path: Path) -> None:
    """Each caller has its own connection and its request lies with the service before the signal comes."""
    conversations = [{"prompt": f"question {i}", "response": f"{i} {WORDS}"} for i in range(4)]
    with ServiceProcess(demo_toml(tmp_path)) as service:
        limits = httpx.Limits(max_connections=CALLERS + 1)
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=300) as http:

            async def ask(caller: int) -> int:
                mine = [{**one, "response": f"{caller} {one['response']}"} for one in conversations]
                answer = await http.post("/v1/score", json={"conversations": mine})
                assert len(answer.json()["scores"]) == len(mine)
                assert all(score["error"] is None for score in answer.json()["scores"])
                return answer.status_code

            asked = [asyncio.create_task(ask(caller)) for caller in range(CALLERS)]
            while not any(one.done() for one in asked):
                metrics = (await http.get("/metrics")).text
                in_progress = value(metrics, "reward_service_requests_in_progress")
                if in_progress > CALLERS:  # the one for the metrics is one too
                    break
            os.kill(service.pid, signal.SIGTERM)
            unanswered = [one for one in asked if not one.done()]
            assert await asyncio.gather(*asked) == [200] * CALLERS
            with pytest.raises(httpx.TransportError):
                await http.get("/health")
        started = time.monotonic()
        assert service.ended() == 0
    assert unanswered, "everything was answered before the signal: no test"
    assert time.monotonic() - started < 20
