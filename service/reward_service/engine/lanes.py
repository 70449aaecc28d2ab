"""One model's place before a device: its work that waits and is being computed, its share of the time, its failures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.engine import Priority
from reward_service.engine.forward import Forward
from reward_service.engine.pace import Pace
from reward_service.engine.rendering import Key
from reward_service.engine.waiting import Waiting, Work
from reward_service.errors import EngineFailed, ServiceError

Outputs = NDArray[np.float64] | ServiceError

FAILING_BATCHES = 3
"""A model is out of order after so many batches in a row that failed as a whole."""
FAILURE_LASTS_S = 30.0
"""How long it is called so after the last of them: then traffic may come back and try it."""


@dataclass(slots=True, eq=False)
class Lane:
    """A model before its device; `served_s` is its device time, that of its unfinished batches as expected.

    `looks_at` are the waiting tokens from which a batch may be full.
    """

    model: str
    forward: Forward
    max_batch_tokens: int
    waiting: Waiting = field(default_factory=Waiting)
    computing: dict[Key, Work] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    served_s: float = 0.0
    turn: int = 0
    looks_at: int = 0
    _failed_batches: int = 0
    _failed_at: float = 0.0
    _last_error: str = ""

    @property
    def failure(self) -> str | None:
        """Why the model gives no scores now; None while it does."""
        recent = time.monotonic() - self._failed_at < FAILURE_LASTS_S
        return self._last_error if recent and self._failed_batches >= FAILING_BATCHES else None

    @property
    def urgency(self) -> Priority:
        """Priority of the first that waits; something must."""
        return next(self.waiting.in_rank()).priority

    @property
    def oldest(self) -> int:
        """Order of the oldest that waits; something must."""
        return next(self.waiting.in_age()).order

    def fail(self, error: EngineFailed) -> None:
        """The model is out of order until a batch succeeds."""
        self._failed_batches = FAILING_BATCHES
        self._failed_at, self._last_error = time.monotonic(), error.detail

    def note(self, outputs: Sequence[Outputs]) -> None:
        """Counts batches in which everything failed; NaN is an answer of a device that works."""
        failures = [one.detail for one in outputs if isinstance(one, EngineFailed)]
        if len(failures) < len(outputs):
            self._failed_batches = 0
        else:
            self._failed_batches += 1
            self._failed_at, self._last_error = time.monotonic(), failures[-1]


@dataclass(slots=True, eq=False)
class Batch:
    """Work of one lane that leaves the queue together; `borne` are the tokens that each item costs.

    `prepared` is what the host has done ahead (None: nothing), while `preparing` it is not to be computed.
    """

    lane: Lane
    works: list[Work]
    borne: list[int]
    computed_tokens: int
    expected_s: float
    priority: Priority
    prepared: "tuple[object] | None" = None
    preparing: bool = False

    @property
    def oldest(self) -> int:
        """Order of its oldest item."""
        return min(work.order for work in self.works)

    @property
    def longest(self) -> int:
        """Tokens of its longest item."""
        return max(work.tokens for work in self.works)

    @property
    def long(self) -> bool:
        """Whether it holds an item that keeps others waiting."""
        return self.longest * 2 > self.lane.max_batch_tokens

    def leave(self) -> None:
        """It is not being computed any more: equal items are computed again, and its lane is not charged for it."""
        for work in self.works:
            self.lane.computing.pop(work.rendered.key, None)
        self.lane.served_s -= self.expected_s
        self.expected_s = 0.0

    def charge(self, seconds: float, outputs: Sequence[Outputs]) -> None:
        """Notes what it has cost its lane and how it went."""
        self.lane.served_s += seconds
        self.lane.note(outputs)
        if not any(isinstance(one, EngineFailed) for one in outputs):
            self.lane.pace.learn(self.computed_tokens, self.longest, seconds)
