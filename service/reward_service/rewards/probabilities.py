"""Rewards of an objective as probabilities, where they are some."""

import math
from collections.abc import Sequence

from reward_service.rewards.scales import Scale
from reward_service.rewards.transforms import TRANSFORMS

UP_TO_ONE = ("geometric", "mean", "min", "median")
"""Aggregations that keep probabilities within [0, 1] whatever the weights."""


def probabilities(aggregate: str, terms: Sequence[tuple[str, float]], rewards: Sequence[float]) -> list[float] | None:
    """Numbers in [0, 1] for rewards that are log-probabilities (nats) or probabilities; None for any others.

    `terms` are the transform and the weight of each. A weighted sum of probabilities is one only where its weights sum
    to no more than 1.
    """
    scales = {TRANSFORMS[transform].scale for transform, weight in terms if weight > 0}
    if scales == {Scale.LOG_PROBABILITY}:
        return [math.exp(reward) for reward in rewards]
    if scales == {Scale.PROBABILITY} and (aggregate in UP_TO_ONE or sum(weight for _, weight in terms) <= 1):
        return list(rewards)
    return None
