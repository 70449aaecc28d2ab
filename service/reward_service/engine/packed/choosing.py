"""Which packed forward a model takes, decided by its numbers: each must give what the model gives for an item alone."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._inductor.runtime.cache_dir_utils import cache_dir

from reward_service.engine.forward import run
from reward_service.engine.heads import OwnHead
from reward_service.engine.packed.forward import PackedForward
from reward_service.engine.packed.plan import Plan, encoder_plan, packed_plan, shared_plan
from reward_service.engine.padded import SAME_PADDED, PaddedForward, same
from reward_service.engine.positions import bound_of
from reward_service.engine.rendering import Rendered, pooled_index

log = logging.getLogger(__name__)

SAME_PACKED = {**SAME_PADDED, torch.float32: 1e-4}
"""Most that packing may change a score, relative to the largest of the probes."""
COMPILE_FROM = 10_000_000
"""Parameters of a body from which on compiled layers save more than a call of one costs."""
PREFIXES = (0, 24, 60)
SUFFIXES = (1, 2, 9, 31)
MOST_BROKEN = 8
"""Compiled libraries on disk that may turn out broken before compilation is given up."""

Planned = Callable[[Sequence[Rendered]], Plan]


def packed_forward(
    model: nn.Module,
    probe: NDArray[np.int32],
    pad_token_id: int | None,
    *,
    share: bool,
    compiled: bool,
    max_tokens: int,
) -> PackedForward | None:
    """The fastest packed forward whose scores are the model's own; None when there is none. `probe` is a text's ids."""
    name, probes = type(model).__name__, _probes(probe, pad_token_id)
    bound = bound_of(model.config.get_text_config())  # type: ignore[operator,union-attr]
    if bound is not None and max_tokens > bound:
        log.warning("the positions of %s depend on the longest item beyond %d tokens: it is not packed", name, bound)
        return None
    device = next(model.parameters()).device
    expected = run(PaddedForward(OwnHead(model), device, pad_token_id, alone=True), probes)
    reason = "its scores change"
    for planned, only_pooled in _candidates(model, share=share):
        try:
            forward = PackedForward(model, planned, only_pooled=only_pooled)
        except Exception as error:  # NotPackable, or the model's own code
            reason = f"{type(error).__name__}: {error}"
            break
        try:
            if same(run(forward, probes), expected, SAME_PACKED[next(model.parameters()).dtype]):
                return _compiled(forward, model, probes, expected) if compiled else forward
        except Exception as error:  # the model's own code, on inputs that it was not written for
            reason = f"{type(error).__name__}: {error}"
        forward.undo()
    log.warning("%s is not packed, it runs in padded batches: %s", name, reason)
    return None


def _candidates(model: nn.Module, *, share: bool) -> Iterator[tuple[Planned, bool]]:
    """Plans, and whether the last layer computes the pooled tokens alone; the fastest first."""
    causal = [shared_plan, packed_plan] if share else [packed_plan]
    decoder = isinstance(getattr(model, "score", None), nn.Linear)
    for planned in [*causal, encoder_plan] if decoder else [encoder_plan, *causal]:
        yield planned, True
        yield planned, False


def _compiled(
    forward: PackedForward, model: nn.Module, probes: Sequence[Rendered], expected: NDArray[np.float64]
) -> PackedForward:
    """The forward with compiled layers, where that pays, works and gives the same scores; else as it was.

    Items alone are among the probes, the first being one token: code for a single row or item is made of its own.
    """
    if sum(parameter.numel() for layer in forward.layers.modules for parameter in layer.parameters()) < COMPILE_FROM:
        return forward
    reason = "their scores differ"
    for _ in range(MOST_BROKEN):
        try:
            forward.layers.compile()
            found = np.concatenate([run(forward, probes), *(run(forward, [one]) for one in probes[:2])])
        except Exception as error:  # no compiler, or code that it does not take
            forward.layers.uncompile()
            if forget_broken(error):
                continue
            reason = " ".join([type(error).__name__, *str(error).split("Set TORCHDYNAMO_VERBOSE")[0].split()])
            break
        if same(found, np.concatenate([expected, expected[:2]]), SAME_PACKED[next(model.parameters()).dtype]):
            return forward
        break
    log.warning("the layers of %s run without compilation: %s", type(model).__name__, reason)
    forward.layers.uncompile()
    return forward


def forget_broken(error: Exception) -> bool:
    """Removes the compiled library that could not be loaded, left half-written by a process that was killed."""
    named = re.search(r"ImportError: (/.+\.so): ", str(error))
    if named is None or not Path(named[1]).is_relative_to(cache_dir()):
        return False
    Path(named[1]).unlink(missing_ok=True)
    return True


def _probes(probe: NDArray[np.int32], pad_token_id: int | None) -> list[Rendered]:
    """Items that share beginnings, one that is another's beginning, and some that end in the pad token."""
    rows = [
        np.concatenate([probe[:prefix], np.roll(probe, -prefix - suffix)[:suffix]])
        for prefix in PREFIXES
        for suffix in SUFFIXES
    ]
    rows.append(probe[: PREFIXES[-1]])
    if pad_token_id is not None:
        rows += [np.append(row, np.int32(pad_token_id)) for row in rows[-2:]]
    return [Rendered(row, pooled_index(row, pad_token_id), None) for row in rows if len(row)]
