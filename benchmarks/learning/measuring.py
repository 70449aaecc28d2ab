"""What a run did to a set of prompts."""

from typing import Any

import numpy as np
from benchmarks.learning.scoring import Array, Scored, within_std
from benchmarks.learning.world import ATTRIBUTES

Figures = dict[str, Any]


def measured(before: Scored, after: Scored) -> Figures:
    """The figures of one run; gains are means over prompts, in nats, spread is within the responses to a prompt."""
    gained, true_gained = gains(before.calibrated, after.calibrated), gains(before.true, after.true)
    return {
        "gain": by_attribute(gained.mean(axis=0)),
        "smaller_gain": float(gained.min(axis=1).mean()),
        "share_worse": share_worse(gained),
        "gain_std_over_prompts": by_attribute(gained.std(axis=0, ddof=1)),
        "spread": by_attribute(within_std(after.calibrated)),
        "p_both": float(np.exp(after.log_p.sum(axis=-1)).mean()),
        "true_gain": by_attribute(true_gained.mean(axis=0)),
        "true_share_worse": share_worse(true_gained),
        "prompts": {name: np.round(gained[:, at], 2).tolist() for at, name in enumerate(ATTRIBUTES)},
    }


def gains(before: Array, after: Array) -> Array:
    """By how much the mean score of each prompt rose, (prompts, 2)."""
    gained: Array = after.mean(axis=1) - before.mean(axis=1)
    return gained


def share_worse(gained: Array) -> float:
    """The share of prompts on which at least one attribute fell."""
    return float(np.mean((gained < 0).any(axis=1)))


def by_attribute(pair: Array) -> dict[str, float]:
    """The two numbers with their names."""
    return {name: float(value) for name, value in zip(ATTRIBUTES, pair, strict=True)}
