"""A model that scores canned responses when a test lets it."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reward_service.baselines import CannedKey
from reward_service.errors import ServiceError

Answer = NDArray[np.float64] | ServiceError
KEYS = [CannedKey("sha256:" + "a" * 64, "I can't help with that.", f"{i:064}") for i in range(8)]


class FakeEngine:
    """Scores keys when the gate opens; fails first with the failures given."""

    def __init__(self, *failures: Exception) -> None:
        self.calls: list[list[CannedKey]] = []
        self.gate = asyncio.Event()
        self.failures = list(failures)
        self.cancelled = 0

    async def __call__(self, keys: list[CannedKey]) -> Sequence[Answer]:
        self.calls.append(keys)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return [np.array([float(key.prompt)]) for key in keys]


def numbers(results: dict[CannedKey, Answer]) -> list[float]:
    return [float(outputs[0]) for outputs in results.values() if not isinstance(outputs, ServiceError)]


async def settle() -> None:
    """Let everything run that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)
