"""Load on replicas whose store fails: every answer is checked against the number of an undisturbed run."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.replicas.conversations import (
    CANNED,
    CONSTANT,
    PROMPTS,
    RAW,
    asked,
    baseline,
    log_sigmoid,
    prompt,
    written,
)

LONGEST_S = 15.0
"""So long no answer may take; the limits of the store are much shorter, the machine of a test may be busy."""

WRITERS = 2


class Load:
    """Workers that ask replicas for rewards of every kind, one after another, until they are told to stop.

    `outcomes` counts what became of the requests of each kind: `answered`, or the code of the error; `answered` those
    that each replica answered. Two workers only write, and repeat what failed.
    """

    def __init__(self, replicas: Sequence[httpx.AsyncClient]) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.answered: Counter[tuple[httpx.AsyncClient, str]] = Counter()
        self.longest_s = 0.0
        self.merged = 0
        self._replicas = replicas
        self._turns = itertools.cycle(replicas)
        self._numbers = itertools.count()
        self._stopping = False
        self._reads: list[Callable[[int], Awaitable[None]]] = [
            self._stored,
            self._given,
            self._constant,
            self._canned,
            self._raw,
        ]

    @asynccontextmanager
    async def running(self, workers: int) -> AsyncIterator[None]:
        """So many workers until the end of the block; what one of them finds wrong is raised here."""
        self._stopping = False
        async with asyncio.TaskGroup() as group:
            for worker in range(workers):
                group.create_task(self._work([self._merge] if worker < WRITERS else self._reads))
            yield
            self._stopping = True

    async def again_answered(self) -> None:
        """Return when each replica has answered a request of each kind that was sent after the call."""
        before = Counter(self.answered)
        kinds = [kind.__name__.strip("_") for kind in (*self._reads, self._merge)]
        async with asyncio.timeout(30):
            while any(self.answered[who, kind] < before[who, kind] + 2 for who in self._replicas for kind in kinds):
                await asyncio.sleep(0.02)

    async def again_refused(self, kind: str) -> None:
        """Return when one more request of the kind has been told that the store is away."""
        before = self.outcomes[kind, "store_unavailable"]
        async with asyncio.timeout(30):
            while self.outcomes[kind, "store_unavailable"] == before:
                await asyncio.sleep(0.02)

    async def _work(self, kinds: Sequence[Callable[[int], Awaitable[None]]]) -> None:
        for kind in itertools.cycle(kinds):
            if self._stopping:
                return
            await kind(next(self._numbers))
            await asyncio.sleep(0)

    def _note(self, replica: httpx.AsyncClient, kind: str) -> None:
        self.outcomes[kind, "answered"] += 1
        self.answered[replica, kind] += 1

    async def _stored(self, number: int) -> None:
        index = number % PROMPTS
        await self._score("stored", RAW - baseline(index), asked("stored", prompt(index)), may_fail=True)

    async def _given(self, number: int) -> None:
        references = {"helpful": {"rewards": [number % 7] * 16}}
        await self._score("given", RAW - number % 7, asked("stored", f"new {number}", references=references))

    async def _constant(self, number: int) -> None:
        await self._score("constant", RAW - CONSTANT, asked("constant", f"new {number}"))

    async def _canned(self, number: int) -> None:
        await self._score("canned", RAW - CANNED, asked("canned", f"new {number}"))

    async def _raw(self, number: int) -> None:
        await self._score("raw", None, asked("raw", f"new {number}"))

    async def _score(self, kind: str, margin: float | None, request: dict[str, Any], *, may_fail: bool = False) -> None:
        replica = next(self._turns)
        started = time.monotonic()
        answer = await replica.post("/v1/score", json=request)
        self.longest_s = max(self.longest_s, time.monotonic() - started)
        assert answer.status_code == 200, answer.text
        (score,) = answer.json()["scores"]
        if score["error"] is not None:
            assert may_fail, f"{kind}: {score['error']}"
            assert (score["error"]["code"], score["error"]["status"]) == ("store_unavailable", 503)
            assert score["reward"] is None
            self.outcomes[kind, "store_unavailable"] += 1
            return
        assert score["reward"] == pytest.approx(RAW if margin is None else log_sigmoid(margin)), (kind, score)
        self._note(replica, kind)

    async def _merge(self, number: int) -> None:
        """Add one row to a prompt; a request that failed is repeated with its key until it is answered."""
        entries = [{"prompt": "merged", "rewards": [float(number)], "draw_ids": [str(number)]}]
        request = written("live", entries=entries, mode="merge", idempotency_key=str(number))
        while True:
            replica = next(self._turns)
            started = time.monotonic()
            answer = await replica.put("/v1/baselines", json=request)
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            if answer.status_code == 200:
                self.merged += 1
                self._note(replica, "merge")
                return
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
            self.outcomes["merge", "store_unavailable"] += 1
            if self._stopping:
                return
            await asyncio.sleep(0.05)


async def merged_rows(replica: httpx.AsyncClient) -> int:
    """How many rows the merges left; a prompt keeps 256 at most."""
    answer = await replica.get("/v1/baselines", params={"model": "helpful", "policy": "live", "prompt": "merged"})
    return int(answer.json()["count"])


async def ready(replica: httpx.AsyncClient) -> str:
    """What a replica that can score says of its store."""
    answer = await replica.get("/ready")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["store"])
