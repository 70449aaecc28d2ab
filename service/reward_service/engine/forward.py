"""What stands between the scheduler and a model: host work that may be done ahead, device work that may be paused."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.rendering import Rendered

Pause = Callable[[], None]


class Layout(StrEnum):
    """How a batch lies on the device, which decides what it costs there."""

    PADDED = "padded"
    """Each item as long as the longest."""
    PACKED = "packed"
    """Items end to end, each whole."""
    SHARED = "shared"
    """Items end to end, a beginning that several have in common once."""


class Forward(Protocol):
    """A blocking model."""

    @property
    def layout(self) -> Layout:
        """How it lays a batch out."""

    def prepare(self, batch: Sequence[Rendered]) -> Any:
        """Host work of a batch; may run in one thread while `compute` runs in another."""

    def compute(self, prepared: Any, pause: Pause) -> NDArray[np.float64]:
        """(items, labels) of a prepared batch, in its order; raises when it cannot.

        Calls `pause` now and then at points where another batch may be computed on the same thread, by this model or
        another, before this one goes on.
        """


def run(forward: Forward, batch: Sequence[Rendered], pause: Pause = lambda: None) -> NDArray[np.float64]:
    """(items, labels) of a batch, prepared and computed at once."""
    return forward.compute(forward.prepare(batch), pause)
