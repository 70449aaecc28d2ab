"""What a model's configuration says of its rotary positions."""

from collections.abc import Mapping
from typing import Any

GROWING = ("dynamic", "longrope")
"""Kinds that change for every token with the length of the longest sequence."""


def bound_of(config: Any, kinds: tuple[str, ...] = GROWING) -> int | None:
    """The most tokens at which rotary positions of these kinds depend on no other token; None where there are none."""
    bounds = [
        int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
        for rope in _ropes(getattr(config, "rope_parameters", None))
        if rope.get("rope_type") in kinds
    ]
    return min(bounds, default=None)


def _ropes(parameters: Any) -> list[Mapping[str, Any]]:
    """The parameters of every kind of layer: some configurations have one set, others one for each kind."""
    if not isinstance(parameters, Mapping):
        return []
    return [parameters, *(nested for value in parameters.values() for nested in _ropes(value))]
