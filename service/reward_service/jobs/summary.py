"""What came out of a job: counts, and the distribution of each number, in one pass over the output."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from reward_service.jobs.distributions import Distribution
from reward_service.jobs.workspace import State

Record = Mapping[str, Any]
ROWS_AT_ONCE = 2000
NUMBERS = ("raw", "baseline", "transformed")


class TermTally:
    """The numbers of one term, where its baselines came from and why it has none."""

    def __init__(self) -> None:
        self._numbers = {name: Distribution() for name in NUMBERS}
        self._sources: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def add(self, terms: Sequence[Record]) -> None:
        """Take the term of more rows."""
        for name, distribution in self._numbers.items():
            distribution.add(np.array([term[name] for term in terms if term[name] is not None], dtype=np.float64))
        self._sources.update(term["baseline_source"] for term in terms if term["baseline_source"] is not None)
        self._errors.update(term["error"]["code"] for term in terms if term["error"] is not None)

    def summary(self) -> dict[str, Any]:
        """The term as it stands in a summary."""
        numbers = {name: described(distribution) for name, distribution in self._numbers.items() if distribution.count}
        return {**numbers, "baseline_sources": dict(self._sources), "errors": dict(self._errors)}


def summarise(rows: Path, state: State) -> dict[str, Any]:
    """The summary of a complete job whose output lines stand in `rows`."""
    pin = state.pin or {}
    reward, terms = Distribution(), {term["name"]: TermTally() for term in pin["recipe"]["terms"]}
    for records in record_batches(rows):
        reward.add(np.array([record["reward"] for record in records], dtype=np.float64))
        for name, tally in terms.items():
            tally.add([record["terms"][name] for record in records])
    return {
        "objective": pin["objective"],
        "rows": state.scored + state.errors,
        "scored": state.scored,
        "failed": state.errors,
        "errors": state.failed,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "reward": described(reward),
        "terms": {name: tally.summary() for name, tally in terms.items()},
    }


def described(distribution: Distribution) -> dict[str, Any]:
    """A distribution's numbers and its histogram."""
    if not distribution.count:
        return {"count": 0}
    edges, counts = distribution.histogram()
    histogram = {"edges": edges.tolist(), "counts": [round(count, 1) for count in counts.tolist()]}
    return {**distribution.summary(), "histogram": histogram}


def record_batches(rows: Path) -> Iterator[list[Record]]:
    """The records of an output, some at a time."""
    with rows.open("rb") as lines:
        while some := list(islice(lines, ROWS_AT_ONCE)):
            yield [json.loads(line) for line in some]
