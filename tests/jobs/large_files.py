"""A job over a large synthetic file, and how much memory it takes meanwhile."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.process import COMMAND

ROW_BYTES = 4000
EVERY_S = 0.25
ENOUGH_ROWS = 1000
ROOT = Path(__file__).parents[2]
MIB = 2**20


def large_file(file: Path, size: int) -> int:
    """Rows of about 4 KB until the file has its size; how many they are."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=7)) for _ in range(500)]
    prompts = [" ".join(chance.choices(words, k=ROW_BYTES // 8)) for _ in range(200)]
    rows = 0
    with file.open("w", buffering=MIB) as lines:
        while rows % 1000 or lines.tell() < size:
            lines.write(f"{json.dumps({'prompt': prompts[rows % 200], 'response': str(rows / 8)})}\n")
            rows += 1
    return rows


@contextmanager
def scripted_service() -> Iterator[str]:
    """The URL of a service in a process of its own."""
    command = [sys.executable, "-m", "tests.jobs.scripted_service"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        found = re.search(r"serving on (http://\S+)", process.stdout.readline())
        assert found is not None
        try:
            yield found[1]
        finally:
            process.terminate()


def memory_of(pid: int) -> list[float]:
    """Resident memory of a process in MiB; nothing when it has just ended."""
    found = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return [int(one) / 1024 for one in found]


def scored_by(state: Path, before: int) -> int:
    """Rows of the last commit; as `before` when the job has ended meanwhile."""
    try:
        return int(json.loads(state.read_text())["scored"])
    except FileNotFoundError:
        return before


def memory_over_time(source: Path, output: Path, seconds: float) -> tuple[list[float], int]:
    """MiB of the job's process, several times a second from its first commit on, and the rows done at the end.

    It takes longer than asked for until enough rows are done.
    """
    state = output.with_name(f"{output.name}.job") / "state.json"
    taken: list[float] = []
    scored = 0
    with scripted_service() as url:
        line = [*COMMAND, "score", str(source), "-o", str(output), "--url", url]
        with subprocess.Popen(line, stderr=subprocess.DEVNULL) as job:
            try:
                while not state.exists():
                    assert job.poll() is None
                    time.sleep(0.1)
                end = time.monotonic() + seconds
                while (time.monotonic() < end or scored <= ENOUGH_ROWS) and state.exists() and job.poll() is None:
                    taken += memory_of(job.pid)
                    scored = scored_by(state, scored)
                    time.sleep(EVERY_S)
            finally:
                job.kill()
    return taken, scored


def check_flat_memory(folder: Path, size: int, seconds: float) -> None:
    """After the first sixth of the time nothing is added but the allocator's noise."""
    source = folder / "large.jsonl"
    rows = large_file(source, size)
    taken, scored = memory_over_time(source, folder / "out.jsonl", seconds)
    source.unlink()
    warm = taken[len(taken) // 6]
    print(f"{scored} of {rows} rows, {size / 1e9:.2f} GB, in {seconds:.0f} s: {warm:.0f} MiB, at most {max(taken):.0f}")
    assert scored > ENOUGH_ROWS
    assert max(taken) <= 1.05 * warm + 24
