"""Many trainer ranks that send one sample a request (slime's form), beside one client that sends batches.

    python -m benchmarks.many_ranks [--samples 20000] [--ranks 64] [--out benchmarks/results/many_ranks.json]

The same samples go both ways, in turns of 2,000, through one service with a demo model and without a score cache:
prompts with 8 responses each, as the trainer's ChatML text and as messages for `/v1/score`. Each rank sends its next
sample when the last is answered, over one connection. Checked: every sample has one answer, equal on both ways, and the
service has scored each of them once a way. Callers and service share the machine.
"""

import argparse
import asyncio
import itertools
import json
import platform
import re
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.machine import described
from benchmarks.servers import serving_service
from benchmarks.workloads import Messages, Workload

from reward_service.demo import FOLDER

MODEL = FOLDER / "models" / "helpful"
BATCH, BATCHES_AT_ONCE = 512, 2
TURN = 2000
ROLLOUTS = Workload(prompts=TURN // 8, responses=8, prompt_words=200, response_words=230)
"""Like the grouped workload of `benchmarks/engines.py`."""
BAR = 0.85
SCORED = 'reward_service_conversations_total{objective="raw"}'
COMPUTED = 'reward_service_computed_tokens_total{model="m"}'
CPU_S = "process_cpu_seconds_total"
TOLERANCE = 1e-4
"""Batches of another make-up sum in another order."""


@dataclass
class Measured:
    """What came of it, by way: seconds of each turn, rewards, tokens computed, seconds of CPU of service and caller."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"ranks": [], "batches": []})
    rewards: dict[str, list[float]] = field(default_factory=lambda: {"ranks": [], "batches": []})
    computed_tokens: dict[str, float] = field(default_factory=lambda: {"ranks": 0, "batches": 0})
    service_cpu_s: dict[str, float] = field(default_factory=lambda: {"ranks": 0, "batches": 0})
    caller_cpu_s: dict[str, float] = field(default_factory=lambda: {"ranks": 0, "batches": 0})
    scored: float = 0.0

    @property
    def samples(self) -> int:
        """How many went each way."""
        return len(self.rewards["ranks"])

    @property
    def largest_difference(self) -> float:
        """Between the two rewards of a sample."""
        return max(abs(a - b) for a, b in zip(self.rewards["ranks"], self.rewards["batches"], strict=True))

    @property
    def ratio(self) -> float:
        """Throughput of the ranks over that of the batches."""
        return sum(self.seconds["batches"]) / sum(self.seconds["ranks"])

    def summary(self) -> dict[str, Any]:
        """For people."""
        turns = zip(self.seconds["batches"], self.seconds["ranks"], strict=True)
        ratios = [batches / ranks for batches, ranks in turns]
        return {
            "samples": self.samples,
            "scored_by_the_service": round(self.scored),
            "distinct_rewards": len(set(self.rewards["ranks"])),
            "largest_difference": self.largest_difference,
            "samples_per_s": {way: round(self.samples / sum(seconds), 1) for way, seconds in self.seconds.items()},
            "computed_tokens_per_sample": {w: round(n / self.samples, 1) for w, n in self.computed_tokens.items()},
            "service_cpu_ms_per_sample": {w: round(1e3 * s / self.samples, 2) for w, s in self.service_cpu_s.items()},
            "caller_cpu_ms_per_sample": {w: round(1e3 * s / self.samples, 2) for w, s in self.caller_cpu_s.items()},
            "ratio": round(self.ratio, 3),
            "ratio_of_turns": {"least": round(min(ratios), 3), "median": round(statistics.median(ratios), 3)},
        }


class Connection:
    """One kept-alive HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    async def post(self, path: str, body: bytes) -> Any:
        """The JSON of the answer; RuntimeError when it is not 200."""
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer_head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", answer_head)
        answer = await self._reader.readexactly(int(length[1]) if length else 0)
        if " 200 " not in answer_head.splitlines()[0]:
            raise RuntimeError(f"{answer_head}{answer.decode()}")
        return json.loads(answer)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection until the end of the block."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 26)
    try:
        yield Connection(reader, writer, place.netloc)
    finally:
        writer.close()
        await writer.wait_closed()


def slime_body(messages: Messages) -> bytes:
    """What slime sends for a sample."""
    prompt = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages[:-1])
    response = f"{messages[-1]['content']}<|im_end|>"
    return json.dumps({"prompt": f"{prompt}<|im_start|>assistant\n", "response": response, "label": None}).encode()


async def by_ranks(url: str, samples: Sequence[Messages], ranks: int) -> list[float]:
    """The rewards of samples that so many ranks ask for, one a request."""
    rewards: dict[int, float] = {}
    bodies = [slime_body(one) for one in samples]
    turns = iter(range(len(samples)))

    async def rank() -> None:
        async with connected(url) as connection:
            for i in turns:
                assert i not in rewards
                rewards[i] = await connection.post("/slime/raw", bodies[i])

    await asyncio.gather(*(rank() for _ in range(ranks)))
    return [rewards[i] for i in range(len(samples))]


async def by_batches(url: str, samples: Sequence[Messages]) -> list[float]:
    """The rewards of samples that one client asks for in batches, with one on its way while another is scored."""
    batches = [samples[i : i + BATCH] for i in range(0, len(samples), BATCH)]
    bodies = [json.dumps({"conversations": [{"messages": one} for one in batch]}).encode() for batch in batches]
    answers: dict[int, list[float]] = {}
    turns = iter(range(len(bodies)))

    async def lane() -> None:
        async with connected(url) as connection:
            for i in turns:
                scores = (await connection.post("/v1/score", bodies[i]))["scores"]
                answers[i] = [score["reward"] for score in scores]

    await asyncio.gather(*(lane() for _ in range(BATCHES_AT_ONCE)))
    return [reward for i in range(len(bodies)) for reward in answers[i]]


async def compare(url: str, samples: int, ranks: int, work: Workload) -> Measured:
    """Both ways, a workload at a time, after one that is not counted."""
    await take_turn(Measured(), url, work.conversations(0), ranks)
    measured, before = Measured(), counted(url, SCORED)
    for seed in itertools.count(1):
        asked = work.conversations(seed)[: samples - measured.samples]
        if not asked:
            break
        await take_turn(measured, url, asked, ranks, first=("batches", "ranks")[seed % 2])
    measured.scored = counted(url, SCORED) - before
    return measured


async def take_turn(
    measured: Measured, url: str, samples: Sequence[Messages], ranks: int, first: str = "batches"
) -> None:
    """The same samples both ways."""
    for way in ("batches", "ranks") if first == "batches" else ("ranks", "batches"):
        computed, cpu = counted(url, COMPUTED), counted(url, CPU_S)
        started, own_cpu = time.perf_counter(), time.process_time()
        rewards = await (by_ranks(url, samples, ranks) if way == "ranks" else by_batches(url, samples))
        measured.seconds[way].append(time.perf_counter() - started)
        measured.rewards[way] += rewards
        measured.caller_cpu_s[way] += time.process_time() - own_cpu
        measured.service_cpu_s[way] += counted(url, CPU_S) - cpu
        measured.computed_tokens[way] += counted(url, COMPUTED) - computed


def counted(url: str, counter: str) -> float:
    """What a counter of the service's metrics says."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        found = re.search(rf"^{re.escape(counter)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def check(measured: Measured, samples: int) -> None:
    """AssertionError unless every sample was answered once each way, with the same reward."""
    assert measured.samples == len(measured.rewards["batches"]) == samples, measured.summary()
    assert measured.scored == 2 * samples, measured.summary()
    assert measured.largest_difference < TOLERANCE, measured.summary()


def measure(samples: int, ranks: int, work: Workload = ROLLOUTS) -> Measured:
    """A service of its own, both ways, checked."""
    with serving_service(MODEL, dtype="float32") as url:
        measured = asyncio.run(compare(url, samples, ranks, work))
    check(measured, samples)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    measured = measure(arguments.samples, arguments.ranks)
    result = {
        "what": "ranks that send one sample a request, beside one client that sends batches of 512, two at a time",
        "command": "python -m benchmarks.many_ranks --out benchmarks/results/many_ranks.json",
        "ranks": arguments.ranks,
        "rollouts": asdict(ROLLOUTS),
        "bar": BAR,
        **measured.summary(),
        "machine": {**described(), "python": platform.python_version()},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
