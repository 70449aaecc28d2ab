"""Peak memory of the service's process at its start, after a request of 256 conversations and after one of 4,096.

    python -m benchmarks.memory [--runs 5] [--out benchmarks/results/memory.json]

Each run is a process of its own. The last one has further requests: whether the peak levels off.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.requests_over_http import post
from benchmarks.servers import listening, serving_service
from benchmarks.workloads import Messages, Workload, build

SMALL, LARGE = 256, 4096
FURTHER = [SMALL] * 20 + [LARGE] * 3


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def conversations(count: int, seed: int) -> list[Messages]:
    """Prompts with 8 responses each."""
    return Workload(count // 8, 8, 200, 230).conversations(seed)


def send(url: str, count: int, seed: int) -> float:
    """MiB of text that one request and its answer are."""
    asked = [{"messages": messages} for messages in conversations(count, seed)]
    body = json.dumps({"conversations": asked, "timeout_s": 600}).encode()
    answer = asyncio.run(post(url, "/v1/score", body))
    return (len(body) + len(answer)) / 2**20


def measured(folder: Path, run: int) -> dict[str, Any]:
    """Peaks of a new process in MiB; how many times that after the small request the one after the large is, without
    the text itself.
    """
    started = time.perf_counter()
    with serving_service(folder) as url:
        found: dict[str, Any] = {"ready_s": round(time.perf_counter() - started, 1)}
        pid = listening(url)
        found["peak_mib_at_start"] = round(peak_mib(pid))
        send(url, SMALL, 100 * run + SMALL)
        found[f"peak_mib_after_{SMALL}"] = small = round(peak_mib(pid))
        text = send(url, LARGE, 100 * run + LARGE)
        found[f"peak_mib_after_{LARGE}"] = large = round(peak_mib(pid))
    return {**found, f"text_mib_of_{LARGE}": round(text, 1), "ratio_without_text": round((large - text) / small, 3)}


def levelling(folder: Path) -> list[dict[str, int]]:
    """The peak of one process after each of many requests, in MiB."""
    with serving_service(folder) as url:
        pid, found = listening(url), []
        for number, count in enumerate(FURTHER):
            send(url, count, 10_000 + number)
            found.append({"conversations": count, "peak_mib": round(peak_mib(pid))})
    return found


def median(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": described(), "size": "25M"}
    with tempfile.TemporaryDirectory() as place:
        folder = build("25M", Path(place))
        runs = []
        for number in range(arguments.runs):
            runs.append(measured(folder, number))
            print(runs[-1], file=sys.stderr, flush=True)
        result |= {"median": median(runs), "runs": runs, "further_requests": levelling(folder)}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
