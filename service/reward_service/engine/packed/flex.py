"""Attention over a pack by FlexAttention, for CUDA devices. No GPU has run it yet; CPUs hold its masks to account."""

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from reward_service.engine.packed.plan import Blocks, Ints, Plan

BLOCK = 128
KEPT_MASKS = 16
Kernel = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Sight:
    """Per token of a pack: the queries at places from `begins` on and before `ends` see it."""

    begins: Ints
    ends: Ints
    positions: Ints

    @classmethod
    def of(cls, plan: Plan) -> "Sight":
        """Spans lie depth first, so that whatever continues a span lies right behind it."""
        ends = [span.start + span.length for span in plan.spans]
        for index in range(len(plan.spans) - 1, -1, -1):
            if (parent := plan.spans[index].parent) >= 0:
                ends[parent] = max(ends[parent], ends[index])
        lengths = plan.span_length
        begins = np.arange(plan.tokens) if plan.causal else np.repeat(plan.span_start, lengths)
        return cls(begins.astype(np.int32), np.repeat(ends, lengths).astype(np.int32), plan.positions)


class FlexAttention:
    """One FlexAttention kernel, compiled once for all plans unless `compiled` is off."""

    def __init__(self, *, compiled: bool = True) -> None:
        plain: Kernel = flex_attention
        self._kernel = torch.compile(plain, dynamic=True) if compiled else plain
        self._masks: OrderedDict[tuple[int, bool, int | None], tuple[Plan, BlockMask]] = OrderedDict()

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        plan: Plan,
        blocks: Blocks,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """(heads, rows, dim) queries, (kv heads, T, dim) keys and values: (rows, heads, value dim)."""
        mask = self._mask(plan, window, query.device, pooled=blocks is plan.pooled_blocks)
        options: dict[str, Any] = {"score_mod": _capped(softcap)} if softcap is not None else {}
        out, aux = self._kernel(
            query[None],
            key[None],
            value[None],
            block_mask=mask,
            scale=scale,
            enable_gqa=query.shape[0] != key.shape[0],
            return_aux=AuxRequest(lse=True),
            **options,
        )
        if sinks is not None:  # a key of no value: it takes its share and gives nothing
            out = out * torch.sigmoid(aux.lse - sinks.float()[None, :, None])[..., None].to(out.dtype)
        result: torch.Tensor = out[0].transpose(0, 1)
        return result

    def _mask(self, plan: Plan, window: int | None, device: torch.device, *, pooled: bool) -> BlockMask:
        """The mask of a plan; all layers of a forward share it, and forwards may be nested."""
        name = (id(plan), pooled, window)
        kept = self._masks.get(name)
        if kept is None or kept[0] is not plan:
            places = plan.pooled if pooled else np.arange(plan.tokens, dtype=np.int32)
            kept = plan, _block_mask(Sight.of(plan), places, window, device)
            self._masks[name] = kept
            if len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return kept[1]


@functools.cache
def shared_kernel() -> FlexAttention:
    """The kernel of this process."""
    return FlexAttention()


def _capped(softcap: float) -> Callable[..., torch.Tensor]:
    def capped(score: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.tanh(score / softcap) * softcap

    return capped


def _block_mask(sight: Sight, places: Ints, window: int | None, device: torch.device) -> BlockMask:
    """Which blocks of keys each block of queries reads, made without a dense mask, and the exact rule inside them."""
    begins, ends, positions, at = (
        torch.from_numpy(one).to(device) for one in (sight.begins, sight.ends, sight.positions, places)
    )
    reach = 2**30 if window is None else window

    def sees(_batch: Any, _head: Any, row: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        place = at[row]
        inside = (place >= begins[key]) & (place < ends[key])
        return inside & ((positions[place] - positions[key]).abs() < reach)

    read = _read(sight, places)
    counts = torch.from_numpy(read.sum(axis=1).astype(np.int32)).to(device)[None, None]
    order = torch.from_numpy(np.argsort(~read, axis=1, kind="stable").astype(np.int32)).to(device)[None, None]
    return BlockMask.from_kv_blocks(
        counts, order, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(len(places), len(sight.ends))
    )


def _read(sight: Sight, places: Ints) -> NDArray[np.bool_]:
    """(blocks of queries, blocks of keys): whether any query of one may see any key of the other."""
    first, last = _by_block(places, np.minimum), _by_block(places, np.maximum)
    begins, ends = _by_block(sight.begins, np.minimum), _by_block(sight.ends, np.maximum)
    read: NDArray[np.bool_] = (last[:, None] >= begins[None]) & (first[:, None] < ends[None])
    return read


def _by_block(values: Ints, least_or_most: np.ufunc) -> Ints:
    reduced: Ints = least_or_most.reduceat(values, np.arange(0, len(values), BLOCK))
    return reduced
