"""The same weights and conversations through this service and its peers, in bfloat16, on all cores of a CPU.

    python -m benchmarks.engines [--vllm .venv-vllm/bin/python] [--rounds 5] [--sizes 25M 352M]

Sides: `padded` and `sorted` (a Transformers server, plain_server.py), `vllm` (in process, token ids in, the best of
three batch sizes), `service` (this one, over HTTP, texts in, score cache off) and `engine` (ours without
rendering, queue and HTTP). All run side by side and take turns within a round; every round has fresh texts, so that
prefix caches are cold. Medians, ratios of pairs, and the share of the bare matrix products are written as JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.requests_over_http import post_all
from benchmarks.servers import serving_plain, serving_service
from benchmarks.workers import Worker, working
from benchmarks.workloads import WORKLOADS, Messages, body_parameters, build, rendered

HERE = Path(__file__).parent
BATCHED_TOKENS = (2048, 4096, 8192)
VLLM = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_CPU_OMP_THREADS_BIND": "0-1", "OMP_NUM_THREADS": "2"}
SLOW = {"padded": {"25M"}, "sorted": {"25M"}}
"""Sides that are measured on some sizes only, and with the grouped workload only."""

Measure = Callable[[Sequence[Messages]], dict[str, Any]]


@dataclass
class Found:
    """What one side measured of one workload, a figure per round."""

    seconds: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    tokens: int = 0
    distinct_tokens: int = 0

    def note(self, answer: dict[str, Any], tokens: int, body: int) -> None:
        """Takes a round's answer."""
        self.seconds.append(answer["seconds"])
        self.tokens, self.distinct_tokens = tokens, answer.get("distinct_tokens", 0)
        if "products_per_s" in answer:
            needed = 2 * body * self.distinct_tokens
            self.share.append(needed / answer["products_per_s"] / answer["seconds"])

    def summary(self) -> dict[str, Any]:
        """Medians."""
        middle = statistics.median(self.seconds)
        made = {"seconds": [round(s, 3) for s in self.seconds], "tokens_per_s": round(self.tokens / middle)}
        if self.share:
            made["distinct_tokens"] = self.distinct_tokens
            made["share_of_matrix_rate"] = round(statistics.median(self.share), 3)
        return made


def over_http(url: str, path: str, body: Callable[[Sequence[Messages]], Any], parts: int = 1) -> Measure:
    """Measures a server; with many parts, as many requests at once."""

    def measure(conversations: Sequence[Messages]) -> dict[str, Any]:
        cut = [conversations] if parts == 1 else [[one] for one in conversations]
        bodies = [json.dumps(body(one)).encode() for one in cut]
        started = time.perf_counter()
        asyncio.run(post_all(url, path, bodies))
        return {"seconds": time.perf_counter() - started}

    return measure


def by_worker(worker: Worker) -> Measure:
    """Measures a worker, which gets token ids."""
    return lambda conversations: worker.ask({"ids": rendered(conversations)})


def service_body(conversations: Sequence[Messages]) -> Any:
    return {"conversations": [{"messages": one} for one in conversations], "timeout_s": 600}


def plain_body(conversations: Sequence[Messages]) -> Any:
    return {"conversations": conversations}


@contextmanager
def sides(size: str, folder: Path, vllm: str | None, batched_tokens: int) -> Iterator[dict[str, Measure]]:
    """Every side that runs for a size, ready."""
    with ExitStack() as stack:
        url = stack.enter_context(serving_service(folder))
        alone = stack.enter_context(working([sys.executable, "-m", "benchmarks.engine_worker", str(folder), size]))
        made = {
            "service": over_http(url, "/v1/score", service_body),
            "service_singles": over_http(url, "/v1/score", service_body, parts=2),
            "engine": by_worker(alone),
        }
        for side in [side for side, sizes in SLOW.items() if size in sizes]:
            plain = stack.enter_context(serving_plain(folder, by_length=side == "sorted"))
            made[side] = over_http(plain, "/get_reward", plain_body)
        if vllm is not None:
            worker = stack.enter_context(working(vllm_command(vllm, folder, batched_tokens), VLLM))
            made["vllm"] = by_worker(worker)
        yield made


def vllm_command(python: str, folder: Path, batched_tokens: int) -> list[str]:
    return [python, "-m", "benchmarks.vllm_worker", str(folder), str(batched_tokens)]


def seconds_by_batched_tokens(size: str, folder: Path, vllm: str, tried: Sequence[int]) -> dict[int, float]:
    """Seconds of vLLM at each of some batch sizes, on the grouped workload."""
    found = {}
    for batched_tokens in tried:
        with working(vllm_command(vllm, folder, batched_tokens), VLLM) as worker:
            measure = by_worker(worker)
            rounds = [measure(WORKLOADS[size]["grouped"].conversations(9000 + i))["seconds"] for i in range(3)]
        found[batched_tokens] = min(rounds[1:])
    return found


def taking_part(workload: str, measures: dict[str, Measure]) -> list[str]:
    """Sides that measure a workload: single requests are our own comparison."""
    if workload == "singles":
        return ["service", "service_singles"]
    left_out = {"service_singles", *(SLOW if workload != "grouped" else ())}
    return [side for side in measures if side not in left_out]


def compared(size: str, folder: Path, vllm: str | None, tried: Sequence[int], rounds: int) -> dict[str, Any]:
    """All workloads of a size; vLLM at the best of the batch sizes to try."""
    by_budget = seconds_by_batched_tokens(size, folder, vllm, tried) if vllm and len(tried) > 1 else {}
    batched_tokens = min(by_budget, key=by_budget.__getitem__) if by_budget else tried[0]
    found: dict[str, dict[str, Found]] = {workload: {} for workload in WORKLOADS[size]}
    with sides(size, folder, vllm, batched_tokens) as measures:
        for number in range(rounds + 1):
            for place, (workload, shape) in enumerate(WORKLOADS[size].items()):
                conversations = shape.conversations(100 * number + 10 * place)
                tokens = sum(map(len, rendered(conversations)))
                for side in _turn(taking_part(workload, measures), number):
                    again = shape.conversations(100 * number + 10 * place + 5)
                    answer = measures[side](again if side == "service_singles" else conversations)
                    if number:
                        found[workload].setdefault(side, Found()).note(answer, tokens, body_parameters(size))
                        print(f"{size} {workload} {side}: {tokens / answer['seconds']:,.0f} tok/s", file=sys.stderr)
    return {
        "body_parameters": body_parameters(size),
        "vllm_max_num_batched_tokens": batched_tokens,
        "vllm_seconds_by_max_num_batched_tokens": {str(k): round(v, 2) for k, v in by_budget.items()},
        "workloads": {workload: summary(of_sides) for workload, of_sides in found.items()},
    }


def _turn(names: list[str], number: int) -> list[str]:
    """Another side begins each round."""
    at = number % len(names)
    return names[at:] + names[:at]


def summary(found: dict[str, Found]) -> dict[str, Any]:
    """Each side, and how many times as fast as it ours is: the median of the rounds' ratios."""
    ours = "service_singles" if "service_singles" in found else "service"
    ratios = {
        side: round(
            statistics.median(theirs / mine for mine, theirs in zip(found[ours].seconds, one.seconds, strict=True)), 2
        )
        for side, one in found.items()
        if side != ours
    }
    return {"sides": {side: one.summary() for side, one in found.items()}, f"{ours}_times_as_fast_as": ratios}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", help="Python of an environment with vLLM (make test-vllm makes one)")
    parser.add_argument("--batched-tokens", nargs="+", type=int, default=BATCHED_TOKENS, help="tried for vLLM")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "engines.json")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": described(), "rounds": arguments.rounds, "dtype": "bfloat16", "sizes": {}}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            made = build(size, Path(folder))
            result["sizes"][size] = compared(size, made, arguments.vllm, arguments.batched_tokens, arguments.rounds)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
