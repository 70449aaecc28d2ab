"""What HTTP and the statistics cost: the service without a model, on one core; the load generator on the other.

    apt-get install wrk
    python -m benchmarks.http_cost [--seconds 8] [--rounds 3] [--out benchmarks/results/http_cost.json]

Two workloads: requests of 256 conversations (32 prompts x 8 responses) by two connections, and of one conversation by
sixteen. CPU is what the kernel charges the server's process, all threads, user and system; the rate is wrk's. Two
log-sigmoid-centered terms have 64 stored references each; each request has its line in a log. `floor` is an empty
FastAPI route that validates the same body.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from math import exp, log1p
from pathlib import Path
from typing import Any

import httpx
from benchmarks.constant_server import PROMPTS, RESPONSES, SCORE, conversations
from benchmarks.machine import commit, processor
from benchmarks.servers import ROOT, free_port

REPLAY = Path(__file__).with_name("replay.lua")
SERVER_CORE, LOAD_CORE = "0", "1"
BATCH = PROMPTS * RESPONSES
BATCHES = 8
WARM_S = 2
START_S = 60
BARS = {"cpu_us_per_conversation": 60, "single_requests_per_s": 1500}


@dataclass(frozen=True)
class Workload:
    """Requests of `size` conversations, sent over as many connections at once."""

    name: str
    size: int
    connections: int


WORKLOADS = (Workload("batch", BATCH, 2), Workload("single", 1, 16))


@dataclass(frozen=True)
class Side:
    """A server to measure: what of `constant_server.py`, over which store."""

    name: str
    kind: str
    store: str


SIDES = (
    Side("memory", "service", "memory://"),
    Side("sqlite", "service", "sqlite:///{folder}/store.db"),
    Side("floor", "floor", "memory://"),
)


@contextmanager
def server(side: Side, folder: Path) -> Iterator[tuple[int, str]]:
    """The process id of a server on its own core, and its URL."""
    port = free_port()
    store = side.store.format(folder=folder)
    python = ["taskset", "-c", SERVER_CORE, sys.executable]
    line = [*python, "-m", "benchmarks.constant_server", side.kind, str(port), store]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(process, url)
        yield process.pid, url
    finally:
        process.terminate()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(f"{url}/docs")
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"no server at {url}")


def write_bodies(folder: Path) -> dict[str, Path]:
    """The list of the files with the request bodies of each workload."""
    chance = random.Random(1)
    batches = [conversations(chance) for _ in range(BATCHES)]
    by_workload = {"batch": batches, "single": [[one] for one in batches[0]]}
    return {name: _written(folder, name, requests) for name, requests in by_workload.items()}


def _written(folder: Path, name: str, requests: list[list[dict[str, Any]]]) -> Path:
    paths = [folder / f"{name}{i}.json" for i in range(len(requests))]
    for path, asked in zip(paths, requests, strict=True):
        path.write_text(json.dumps({"conversations": asked}))
    listed = folder / f"{name}.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    return listed


def load(url: str, workload: Workload, bodies: Path, seconds: int) -> dict[str, Any]:
    """What wrk saw in `seconds`; any answer that is not 200 ends the benchmark."""
    line = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{workload.connections}", f"-d{seconds}s", "--timeout", "30s"]
    environment = {**os.environ, "BODIES": str(bodies)}
    done = subprocess.run([*line, "-s", str(REPLAY), url], env=environment, capture_output=True, text=True, check=True)
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if seen["errors"] or not seen["requests"]:
        raise RuntimeError(f"{workload.name}: {done.stdout}")
    return seen


def measure(pid: int, url: str, workload: Workload, bodies: Path, seconds: int) -> dict[str, float]:
    """CPU and rate of one workload, after a warm-up that is not counted."""
    load(url, workload, bodies, WARM_S)
    used, started = cpu_seconds(pid), time.monotonic()
    seen = load(url, workload, bodies, seconds)
    cpu, wall = cpu_seconds(pid) - used, time.monotonic() - started
    return {
        "cpu_us_per_conversation": 1e6 * cpu / (seen["requests"] * workload.size),
        "requests_per_s": seen["requests"] / seen["seconds"],
        "median_ms": seen["median_ms"],
        "p99_ms": seen["p99_ms"],
        "server_busy": cpu / wall,
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(url: str, bodies: Path) -> None:
    """Raise AssertionError unless every reward is what the two baselines of its answer say."""
    body = Path(bodies.read_text().splitlines()[0]).read_bytes()
    answer = httpx.post(f"{url}/v1/score", content=body, headers={"content-type": "application/json"}, timeout=60)
    scores = answer.raise_for_status().json()["scores"]
    assert len(scores) == BATCH
    for score in scores:
        expected = -sum(log1p(exp(term["baseline"] - SCORE)) for term in score["terms"])
        assert abs(score["reward"] - expected) < 1e-12, score
        assert [term["reference"]["count"] for term in score["terms"]] == [64, 64], score


def compare(rounds: int, seconds: int) -> dict[str, Any]:
    """Medians over rounds of each server and workload; the servers take turns."""
    measured: dict[str, dict[str, list[dict[str, float]]]] = {
        side.name: {workload.name: [] for workload in WORKLOADS} for side in SIDES
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = write_bodies(folder)
        for _ in range(rounds):
            for side in SIDES:
                with server(side, folder) as (pid, url):
                    if side.kind == "service":
                        check(url, bodies["batch"])
                    for workload in WORKLOADS:
                        one = measure(pid, url, workload, bodies[workload.name], seconds)
                        print(side.name, workload.name, {k: round(v, 1) for k, v in one.items()}, file=sys.stderr)
                        measured[side.name][workload.name].append(one)
        sizes = {w.name: Path(bodies[w.name].read_text().splitlines()[0]).stat().st_size for w in WORKLOADS}
    medians = {side: {w: median(runs) for w, runs in of_side.items()} for side, of_side in measured.items()}
    return {"body_bytes": sizes, "sides": medians}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk, the load generator, is not installed; on Debian: apt-get install wrk")
    result = {
        "what": "two LSC terms on 64 stored references each, constant scores; server on one core, wrk on the other",
        "command": "python -m benchmarks.http_cost --out benchmarks/results/http_cost.json",
        "bars": BARS,
        **compare(arguments.rounds, arguments.seconds),
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fastapi", "pydantic", "uvicorn", "uvloop", "httptools", "numpy")},
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
