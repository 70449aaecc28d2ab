"""A small real engine whose scores stand in the responses, so that a test can say what a model would answer."""

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np

from reward_service.engine.engine import EngineCard, Estimate, Fingerprint, Item, ItemError, Priority
from reward_service.errors import EngineFailed, NotFinite, ServiceError


class ScriptedEngine:
    """Reads one number per label from the last message (or the text): "1.5", or "1.5 -2" for a model with two labels.

    "nan" and "boom" are the failures of a model and of a device; `raises` is raised for a call as a whole. A response
    cut at the length limit has the number of the configuration, and no tokens. `calls` keeps the items of each call,
    `admitted` whether it was part of a request that was inside already, `priorities` what went before what.
    """

    def __init__(self, name: str, labels: Sequence[str] = ("LABEL_0",), *, variance: float | None = None) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.card = EngineCard(
            engine="scripted",
            labels=tuple(labels),
            fingerprint=Fingerprint(f"sha256:{digest}", "weights"),
            dtype="float32",
            device="cpu",
            max_tokens=4096,
        )
        self.failure: str | None = None
        self.work_s = 0.0
        self.calls: list[list[Item]] = []
        self.admitted: list[bool] = []
        self.priorities: list[Priority] = []
        self.raises: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self._variance = variance

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to finish."""

    async def score(
        self,
        items: Sequence[Item],
        *,
        priority: Priority,
        deadline: float,
        admitted: bool = False,
        use_cache: bool = True,
    ) -> list[Estimate | ItemError]:
        """The numbers that stand in the items, once the gate is open."""
        self.calls.append(list(items))
        self.admitted.append(admitted)
        self.priorities.append(priority)
        if self.raises is not None:
            raise self.raises
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [self._answer(item) for item in items]

    def _answer(self, item: Item) -> Estimate | ItemError:
        text = item.text if item.messages is None else item.messages[-1]["content"]
        failures: dict[str, ServiceError] = {"nan": NotFinite("NaN"), "boom": EngineFailed("the device failed")}
        if text in failures:
            return ItemError(failures[text])
        outputs = np.array([float(number) for number in str(text).split()])
        labels = len(self.card.labels)
        outputs = np.resize(outputs, labels)
        variance = None if self._variance is None else np.full(labels, self._variance)
        tokens = 0 if item.finish_reason == "length" else 10
        return Estimate(outputs=outputs, tokens=tokens, tokens_computed=tokens, variance=variance, response_tokens=3)
