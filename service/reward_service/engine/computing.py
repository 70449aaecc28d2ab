"""A batch through a model: its outputs, or what went wrong with each of its items."""

import logging
from collections.abc import Sequence

import numpy as np

from reward_service.engine.forward import Forward, Pause
from reward_service.engine.lanes import Outputs
from reward_service.engine.rendering import Rendered
from reward_service.errors import EngineFailed, NotFinite

log = logging.getLogger(__name__)


def compute(
    forward: Forward, batch: Sequence[Rendered], pause: Pause, prepared: tuple[object] | None = None
) -> list[Outputs]:
    """Outputs or error of each item. A batch that fails is halved until only the item that makes it fail is alone."""
    try:
        rows = forward.compute(prepared[0] if prepared is not None else forward.prepare(batch), pause)
    except Exception as error:
        if len(batch) == 1:
            log.exception("the forward pass of an item of %d tokens failed", batch[0].tokens)
            return [EngineFailed(f"the model failed on this conversation: {type(error).__name__}: {error}")]
    else:
        return [row if np.isfinite(row).all() else _not_finite(row) for row in rows]
    half = len(batch) // 2  # out here, since the error holds what the failed batch had on the device
    return [*compute(forward, batch[:half], pause), *compute(forward, batch[half:], pause)]


def _not_finite(row: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> NotFinite:
    return NotFinite(f"the model gave {row.tolist()} for this conversation")
