"""The service beside a plain Transformers server: the same weights and conversations over HTTP, float32, all cores.

    python benchmarks/serving.py [--rounds 5] [--out benchmarks/results/serving.json]

Two workloads of 128 conversations: one request with all of them, and 128 concurrent requests with one each.
The servers take turns within a round, every round has fresh texts, and medians and paired ratios are printed as JSON.
"""

import argparse
import asyncio
import json
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
import transformers

from reward_service.demo import FOLDER

MODEL = FOLDER / "models" / "helpful"
CONVERSATIONS = 128
PLAIN = Path(__file__).with_name("plain_server.py")
WORDS = (
    "the a of to and in is it you that he was for on are with as his they at be this have from or one had by".split()
)


def conversations(seed: int) -> list[list[dict[str, str]]]:
    """Made-up conversations whose lengths spread as those of real ones do: lognormal, median 120 words."""
    chance = random.Random(seed)
    return [
        [{"role": "user", "content": words(chance, 20)}, {"role": "assistant", "content": words(chance, 120)}]
        for _ in range(CONVERSATIONS)
    ]


def words(chance: random.Random, median: float) -> str:
    return " ".join(chance.choices(WORDS, k=max(1, min(600, round(median * chance.lognormvariate(0, 0.7))))))


def service_body(asked: list[Any]) -> dict[str, Any]:
    return {"conversations": [{"messages": messages} for messages in asked]}


def plain_body(asked: list[Any]) -> dict[str, Any]:
    return {"conversations": asked}


def service_rewards(answer: dict[str, Any]) -> list[float]:
    return [score["reward"] for score in answer["scores"]]


SIDES: dict[str, Any] = {
    "service": ("/v1/score", service_body, service_rewards),
    "plain": ("/get_reward", plain_body, lambda answer: answer["rewards"]),
}


async def measure(url: str, side: str, parts: list[list[Any]]) -> tuple[float, list[float]]:
    """Seconds until the last of the concurrent requests is answered, and the rewards."""
    path, body, rewards = SIDES[side]
    limits = httpx.Limits(max_connections=CONVERSATIONS)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        started = time.perf_counter()
        answers = await asyncio.gather(*(http.post(path, json=body(part)) for part in parts))
        seconds = time.perf_counter() - started
    return seconds, [reward for answer in answers for reward in rewards(answer.raise_for_status().json())]


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Both servers, each a process of its own, by URL."""
    ports = {side: free_port() for side in SIDES}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(
            f'[server]\nport = {ports["service"]}\n[store]\nurl = "memory://"\n'
            f'[[models]]\nname = "m"\nsource = "{MODEL}"\ndtype = "float32"\n'
            '[[objectives]]\nname = "raw"\naggregate = "mean"\n'
            '[[objectives.terms]]\nmodel = "m"\ntransform = "identity"\n'
        )
        config.flush()
        started = [
            subprocess.Popen([sys.executable, "-m", "reward_service.cli", "serve", "-c", config.name]),
            subprocess.Popen([sys.executable, str(PLAIN), str(MODEL), str(ports["plain"])]),
        ]
        try:
            for port in ports.values():
                wait_for(port)
            yield {side: f"http://127.0.0.1:{port}" for side, port in ports.items()}
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/docs")
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"no server on port {port}")


def compare(rounds: int) -> dict[str, Any]:
    """Median seconds and paired ratios for each workload, after one round that is not counted."""
    seconds: dict[str, dict[str, list[float]]] = {
        w: {side: [] for side in SIDES} for w in ("one_request", "concurrent")
    }
    largest = 0.0
    with servers() as urls:
        for number in range(rounds + 1):
            for seed, workload in enumerate(seconds):
                asked = conversations(10 * number + seed)
                parts = [asked] if workload == "one_request" else [[one] for one in asked]
                found = {side: asyncio.run(measure(urls[side], side, parts)) for side in SIDES}
                differences = [abs(a - b) for a, b in zip(found["service"][1], found["plain"][1], strict=True)]
                largest = max(largest, *differences)
                for side, (took, _) in found.items():
                    seconds[workload][side] += [took] if number else []
    return {"workloads": {w: summary(of_sides) for w, of_sides in seconds.items()}, "largest_difference": largest}


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    ratios = [plain / ours for ours, plain in zip(seconds["service"], seconds["plain"], strict=True)]
    medians = {f"{side}_s": round(statistics.median(took), 3) for side, took in seconds.items()}
    return {**medians, "ratio": round(statistics.median(ratios), 2), "ratios": [round(r, 2) for r in ratios]}


def processor() -> str:
    """The processor's model name, or what the platform says of it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return str(names[0]) if names else platform.machine()


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {
        "what": f"{CONVERSATIONS} conversations over HTTP, demo model, float32; ratio = plain seconds / ours",
        "command": "python benchmarks/serving.py --out benchmarks/results/serving.json",
        **compare(arguments.rounds),
        "hardware": {"processor": processor(), "cores": torch.get_num_threads()},
        "commit": commit(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
