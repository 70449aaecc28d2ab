"""Peak memory of the service's process after a request of 256 conversations and after one of 4,096, and its start.

python -m benchmarks.memory [--out benchmarks/results/memory.json]
"""

import argparse
import asyncio
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.requests_over_http import post
from benchmarks.servers import listening, serving_service
from benchmarks.workloads import Workload, build

REQUESTS = {256: Workload(32, 8, 200, 230), 4096: Workload(512, 8, 200, 230)}


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def measured(folder: Path) -> dict[str, Any]:
    """Peaks in MiB, and the size of what was sent and received."""
    found: dict[str, Any] = {}
    started = time.perf_counter()
    with serving_service(folder) as url:
        found["ready_s"] = round(time.perf_counter() - started, 1)
        pid = listening(url)
        found["peak_mib_at_start"] = round(peak_mib(pid))
        for count, workload in REQUESTS.items():
            asked = [{"messages": messages} for messages in workload.conversations(count)]
            body = json.dumps({"conversations": asked, "timeout_s": 600}).encode()
            answer = asyncio.run(post(url, "/v1/score", body))
            found[f"peak_mib_after_{count}"] = round(peak_mib(pid))
            found[f"text_mib_of_{count}"] = round((len(body) + len(answer)) / 2**20, 1)
    return found


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {"machine": described(), "size": "25M", **measured(build("25M", Path(folder)))}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
