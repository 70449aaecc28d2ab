"""What prompts of 8,000 tokens cost the short conversations beside them: latencies under Poisson arrivals.

    python -m benchmarks.poisson [--rounds 4] [--seconds 20] [--out benchmarks/results/poisson.json]

A random Llama-shaped model of 25M body parameters in bfloat16, in process, without the score cache. Arrivals come at
half of the measured capacity: items of 256 to 600 tokens, and with them 2 % of 8,000. Within a round the same arrivals
are scored three times: the short ones alone, with the long ones, and with the long ones when a batch is never paused.
"""

import argparse
import asyncio
import functools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.machine import described
from benchmarks.workloads import build, one_token_words
from numpy.typing import NDArray

from reward_service.config import ClassifierConfig
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, Priority
from reward_service.engine.forward import Forward, Pause
from reward_service.engine.lanes import Lane
from reward_service.engine.torch_engine import TorchEngine

SHORT_TOKENS = (256, 600)
LONG_TOKENS = 8000
LONG_SHARE = 0.02
SIDES = ("short_alone", "with_long", "with_long_unpaused")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An item that comes `at` so many seconds after the start."""

    at: float
    tokens: int

    @property
    def short(self) -> bool:
        return self.tokens < LONG_TOKENS


class Unpaused:
    """A forward that goes through with every batch."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.layout = forward.layout
        self.prepare = forward.prepare

    def compute(self, prepared: Any, pause: Pause) -> NDArray[np.float64]:  # noqa: ARG002
        return self._forward.compute(prepared, lambda: None)


def arrivals(seed: int, per_s: float, seconds: float) -> list[Arrival]:
    chance, at = random.Random(seed), 0.0
    found = []
    while (at := at + chance.expovariate(per_s)) < seconds:
        tokens = LONG_TOKENS if chance.random() < LONG_SHARE else chance.randint(*SHORT_TOKENS)
        found.append(Arrival(at, tokens))
    return found


def item(chance: random.Random, tokens: int) -> Item:
    return Item(text=" ".join(["", *chance.choices(words(), k=tokens)]))  # a word behind a blank is a token


@functools.cache
def words() -> list[str]:
    return one_token_words()


async def score(engine: TorchEngine, items: Sequence[Item]) -> None:
    results = await engine.score(
        items, priority=Priority.ROLLOUT, deadline=time.monotonic() + 300, admitted=True, use_cache=False
    )
    if not all(isinstance(result, Estimate) for result in results):
        raise RuntimeError(f"an item was not scored: {results}")


async def capacity(engine: TorchEngine, seed: int, count: int = 150) -> float:
    """Items per second when all wait at once, long ones among them."""
    chance = random.Random(seed)
    lengths = [LONG_TOKENS if n % round(1 / LONG_SHARE) == 0 else chance.randint(*SHORT_TOKENS) for n in range(count)]
    items = [item(chance, length) for length in lengths]
    started = time.perf_counter()
    await asyncio.gather(*(score(engine, [one]) for one in items))
    return count / (time.perf_counter() - started)


async def latencies(engine: TorchEngine, due: Sequence[Arrival], seed: int) -> list[float]:
    """Seconds from the arrival of each short item to its score."""
    chance = random.Random(seed)
    asked = [(arrival, item(chance, arrival.tokens)) for arrival in due]
    started = time.perf_counter()

    async def one(arrival: Arrival, what: Item) -> float:
        await asyncio.sleep(arrival.at - (time.perf_counter() - started))
        await score(engine, [what])
        return time.perf_counter() - started - arrival.at

    took = await asyncio.gather(*(one(*each) for each in asked))
    return [seconds for seconds, (arrival, _) in zip(took, asked, strict=True) if arrival.short]


async def measure(engine: TorchEngine, lane: Lane, rounds: int, seconds: float) -> dict[str, Any]:
    forward = lane.forward
    for tokens in (300, LONG_TOKENS, 300):
        await score(engine, [item(random.Random(tokens), tokens)])
    measured = statistics.median([await capacity(engine, seed) for seed in (1, 2, 3)])
    took: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        due = arrivals(100 + number, measured / 2, seconds)
        for turn in range(len(SIDES)):
            side = SIDES[(number + turn) % len(SIDES)]
            lane.forward = Unpaused(forward) if side == "with_long_unpaused" else forward
            asked = [arrival for arrival in due if arrival.short] if side == "short_alone" else due
            took[side].append(await latencies(engine, asked, 1000 * number + turn))
            print(number, side, summary(took[side][-1:]), flush=True)
        lane.forward = forward
    return {
        "layout": str(forward.layout),
        "capacity_items_per_s": round(measured, 2),
        "arrivals_per_s": round(measured / 2, 2),
        "latency_of_short_items": {side: summary(runs) for side, runs in took.items()},
        "p99_ratio": {side: ratio(took[side], took["short_alone"]) for side in SIDES[1:]},
    }


def summary(runs: Sequence[Sequence[float]]) -> dict[str, float]:
    pooled = [seconds for run in runs for seconds in run]
    p50, p99 = np.quantile(pooled, [0.5, 0.99])
    return {"items": len(pooled), "p50_ms": round(1000 * float(p50), 1), "p99_ms": round(1000 * float(p99), 1)}


def ratio(runs: Sequence[Sequence[float]], alone: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of all rounds together, and of each."""
    pairs = zip(runs, alone, strict=True)
    each = [summary([run])["p99_ms"] / summary([base])["p99_ms"] for run, base in pairs]
    pooled = summary(runs)["p99_ms"] / summary(alone)["p99_ms"]
    return {"pooled": round(pooled, 2), "rounds": [round(one, 2) for one in each]}


async def run(rounds: int, seconds: float) -> dict[str, Any]:
    devices = Devices(max_queued_tokens=10_000_000)
    with tempfile.TemporaryDirectory() as folder:
        config = ClassifierConfig(
            name="m",
            source=str(build("25M", Path(folder))),
            dtype="bfloat16",
            device="cpu",
            max_tokens=LONG_TOKENS + 1,
            parity="self",
        )
        engine = TorchEngine(config, devices)
        await engine.start()
    try:
        return await measure(engine, devices.get("cpu").thread.lanes[0], rounds, seconds)
    finally:
        await engine.close()
        await devices.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {
        "what": "latency of items of 256 to 600 tokens, alone and beside 2 % of 8,000; Poisson arrivals at half load",
        "command": f"python -m benchmarks.poisson --rounds {arguments.rounds} --seconds {arguments.seconds:g}",
        **asyncio.run(run(arguments.rounds, arguments.seconds)),
        **described(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
