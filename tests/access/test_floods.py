"""Bodies of 100 MB, slow-loris, header bombs and junk: memory stays bounded, and other callers are served meanwhile."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.access.serving import Wire, request, until
from tests.process import ServiceProcess, demo_toml

MIB = 1 << 20
BODY_BYTES = 100_000_000
LORISES = 200
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
LIMITS = "[limits]\nheader_timeout_s = 1.5\nmax_connections = 300\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """With the bundled models, as anybody would start it."""
    file = demo_toml(tmp_path_factory.mktemp("floods"))
    file.write_text(LIMITS + file.read_text())
    with ServiceProcess(file) as running:
        score(running)
        yield running


def port(service: ServiceProcess) -> int:
    return int(service.url.rsplit(":", 1)[1])


def score(service: ServiceProcess) -> float:
    """Seconds that another caller waits for its reward."""
    started = time.monotonic()
    conversation = {"prompt": "How tall is a giraffe?", "response": f"About {started} metres."}
    answer = httpx.post(f"{service.url}/v1/score", json={"conversations": [conversation]}, timeout=30)
    assert answer.json()["scores"][0]["reward"] is not None
    return time.monotonic() - started


def peak_mib(service: ServiceProcess) -> float:
    """The most memory since the last call."""
    peak = next(line for line in Path(f"/proc/{service.pid}/status").read_text().splitlines() if "VmHWM" in line)
    Path(f"/proc/{service.pid}/clear_refs").write_text("5")
    return int(peak.split()[1]) / 1024


def flooded(service: ServiceProcess, flood: Callable[[], None], callers: int) -> tuple[float, float]:
    """MiB that the peak grew while so many callers flood, and the longest time that another caller waited."""
    peak_mib(service)
    before = peak_mib(service)
    waits: list[float] = []
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            waits.append(score(service))
            time.sleep(0.05)

    with ThreadPoolExecutor(callers + 1) as pool:
        watching = pool.submit(others)
        floods = [pool.submit(flood) for _ in range(callers)]
        for one in floods:
            one.result()
        over.set()
        watching.result()
    return peak_mib(service) - before, max(waits)


def test_bodies_of_100_mb_take_no_memory(service: ServiceProcess) -> None:
    def announced() -> None:
        with Wire(port(service)) as wire:
            wire.send(HEAD + b"content-length: %d\r\n\r\n" % BODY_BYTES)
            for _ in range(BODY_BYTES // 1_000_000):
                wire.pour(b"x" * 1_000_000)
            assert wire.reply().json["code"] == "too_large"

    grew, waited = flooded(service, announced, callers=4)
    assert grew < 24, "MiB"
    assert waited < 10


def test_a_body_of_unknown_length_takes_the_limit_and_no_more(service: ServiceProcess) -> None:
    def chunked() -> None:
        with Wire(port(service)) as wire:
            wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(BODY_BYTES // 1_000_000):
                wire.pour(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
            assert wire.reply().json["code"] == "too_large"

    grew, waited = flooded(service, chunked, callers=1)
    assert grew < 64 * 1.5 + 24, "MiB"
    assert waited < 10


def test_200_slow_lorises_hold_nobody_up_and_are_gone_in_time(service: ServiceProcess) -> None:
    def loris() -> None:
        with Wire(port(service)) as wire:
            wire.send(b"GET /health HTTP/1.1\r\n")
            try:
                for i in range(100):
                    wire.send(b"x-%d: y\r\n" % i)
                    time.sleep(0.1)
            except (BrokenPipeError, ConnectionResetError):
                return
            raise AssertionError("never cut off")

    grew, waited = flooded(service, loris, callers=LORISES)
    assert grew < 24, "MiB"
    assert waited < 10


@pytest.mark.parametrize(
    "junk",
    [
        b"GET /health HTTP/1.1\r\n" + b"x-header: y\r\n" * 800_000,
        b"GET /health HTTP/1.1\r\nx: " + b"x" * 10_000_000,
        request("GET", "/health") * 250_000,
        b"\xff" * 10_000_000,
    ],
    ids=["headers", "one header", "requests", "bytes"],
)
def test_ten_megabytes_of_junk_take_no_memory(junk: bytes, service: ServiceProcess) -> None:
    def send() -> None:
        with Wire(port(service)) as wire:
            wire.pour(junk)

    grew, waited = flooded(service, send, callers=8)
    assert grew < 48, "MiB"
    assert waited < 10


def test_afterwards_every_connection_is_gone(service: ServiceProcess) -> None:
    def sockets() -> int:
        return sum("socket:" in os.path.realpath(one) for one in Path(f"/proc/{service.pid}/fd").iterdir())

    until(lambda: sockets() <= 8)
