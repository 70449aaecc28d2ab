"""Job files for tests: rows whose rewards stand in their responses, and what a job made of them."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reward_service.jobs import JobPlan, Progress, ServiceScorer, opened
from reward_service.service import Service
from tests.scripted import ScriptedEngine

ONE_TERM = """
[store]
url = "memory://"
[[models]]
name = "helpful"
source = "scripted"
[[objectives]]
name = "raw"
aggregate = "mean"
[[objectives.terms]]
model = "helpful"
transform = "identity"
"""
STORED = ONE_TERM.replace(
    'transform = "identity"', 'transform = "centered"\nbaseline = { policy = "sft", on_missing = 0.0 }'
)


def scored_items(engine: ScriptedEngine) -> int:
    return sum(len(items) for items in engine.calls)


def row(number: float, **fields: Any) -> dict[str, Any]:
    """A row whose raw score is a number."""
    return {"prompt": "How much?", "response": str(number), **fields}


def write(file: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    """A JSONL file; texts are lines as they are."""
    lines = (one if isinstance(one, str) else json.dumps(one) for one in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def errors(output: Path) -> list[dict[str, Any]]:
    """The rows of an output's error file."""
    return read(output.with_name(f"{output.name}.errors.jsonl"))


async def score(
    service: Service, plan: JobPlan, *, stop_after: int | None = None, seen: list[Progress] | None = None
) -> dict[str, Any] | None:
    """Run a job to its end, or until so many rows are written."""
    stop = asyncio.Event()

    def observe(progress: Progress) -> None:
        if seen is not None:
            seen.append(progress)
        if stop_after is not None and progress.scored + progress.failed >= stop_after:
            stop.set()

    with opened(plan) as job:
        return await job.run(ServiceScorer(service), observe, stop)
