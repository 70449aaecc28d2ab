"""What a call costs where the client runs, beside plain httpx: CPU of the calling process, all its threads.

    python -m benchmarks.client_cost [--rounds 3] [--out benchmarks/results/client_cost.json]

The service has no model (`constant_server.py`) and a process of its own. Calls of one conversation go one after the
other or 64 at once, calls of 256 one after the other. Plain httpx has one client and reads the answer as a
dict; ours also splits, tries again, counts, checks and types it. The sides take turns in a round; figures are medians.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
from benchmarks.constant_server import conversations
from benchmarks.http_cost import SIDES, server
from benchmarks.machine import commit, processor

from reward_service.client import AsyncClient, Client

AT_ONCE = 64
Asked = list[dict[str, Any]]
Figures = dict[str, float]


def one_after_the_other(call: Callable[[], object], count: int) -> Figures:
    """CPU of each of so many calls."""
    call()
    used, started = time.process_time(), time.monotonic()
    for _ in range(count):
        call()
    return figures(used, started, count)


async def at_once(call: Callable[[], Awaitable[object]], count: int) -> Figures:
    """CPU of each of so many calls, 64 under way at any time."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(call() for _ in range(AT_ONCE)))
    used, started = time.process_time(), time.monotonic()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return figures(used, started, count)


def figures(used: float, started: float, count: int) -> Figures:
    cpu, wall = time.process_time() - used, time.monotonic() - started
    return {"cpu_us_per_call": 1e6 * cpu / count, "calls_per_s": count / wall}


def measure_sync(url: str, asked: Asked, count: int) -> dict[str, Figures]:
    """Both sides, one call after the other."""
    path = f"{url}/v1/score"
    with httpx.Client(timeout=60) as plain, Client(url) as client:
        return {
            "httpx": one_after_the_other(lambda: plain.post(path, json={"conversations": asked}).json(), count),
            "client": one_after_the_other(lambda: client.score(asked), count),
        }


async def measure_async(url: str, asked: Asked, count: int) -> dict[str, Figures]:
    """Both sides, 64 calls at once."""
    path = f"{url}/v1/score"
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(timeout=60, limits=limits) as plain, AsyncClient(url) as client:

        async def post() -> object:
            return (await plain.post(path, json={"conversations": asked})).json()

        return {"httpx": await at_once(post, count), "client": await at_once(lambda: client.score(asked), count)}


def compare(rounds: int) -> dict[str, Any]:
    """Medians over rounds, by workload and side."""
    runs: dict[str, list[dict[str, Figures]]] = {}
    batch = conversations(random.Random(1))
    with tempfile.TemporaryDirectory() as folder, server(SIDES[0], Path(folder)) as (_, url):
        for _ in range(rounds):
            for name, measured in (
                ("single", measure_sync(url, batch[:1], 400)),
                ("single, 64 at once", asyncio.run(measure_async(url, batch[:1], 1500))),
                ("256 conversations", measure_sync(url, batch, 20)),
            ):
                print(name, measured, file=sys.stderr)
                runs.setdefault(name, []).append(measured)
    return {name: {side: median([run[side] for run in found]) for side in found[0]} for name, found in runs.items()}


def median(found: list[Figures]) -> Figures:
    return {name: round(statistics.median(one[name] for one in found), 1) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {
        "what": "CPU of the calling process for one call; the service without a model in another process",
        "command": "python -m benchmarks.client_cost --out benchmarks/results/client_cost.json",
        "workloads": compare(arguments.rounds),
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("httpx", "httpcore", "anyio", "pydantic")},
            "sniffio": version("sniffio") if find_spec("sniffio") else None,
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
