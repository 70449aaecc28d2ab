"""Attention over a pack by plain matrix products of torch: any device, any number type, no dense T x T mask."""

import torch

from reward_service.engine.packed.plan import Blocks, Plan

ROWS = 256
"""Queries per product: what they see is masked only where it must be."""


def block_attention(
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
    heads, rows, _ = query.shape
    kv_heads = key.shape[0]
    out = query.new_empty((rows, heads, value.shape[2]))
    sinks = None if sinks is None else sinks.to(query.dtype).reshape(kv_heads, -1, 1, 1)
    for block in range(len(blocks.row)):
        spans = [plan.spans[i] for i in blocks.read[blocks.offsets[block] : blocks.offsets[block + 1]]]
        seen_keys = torch.cat([key[:, s.start : s.start + s.length] for s in spans], dim=1)
        seen_values = torch.cat([value[:, s.start : s.start + s.length] for s in spans], dim=1)
        row, count, first = int(blocks.row[block]), int(blocks.rows[block]), int(blocks.first[block])
        for at in range(0, count, ROWS):
            here = min(ROWS, count - at)
            low, high = _seen(first + at, here, seen_keys.shape[1], window, causal=plan.causal)
            queries = query[:, row + at : row + at + here].reshape(kv_heads, -1, query.shape[2])
            scores = torch.bmm(queries, seen_keys[:, low:high].transpose(1, 2)) * scale
            if softcap is not None:
                scores = torch.tanh(scores / softcap) * softcap
            scores = scores.view(kv_heads, heads // kv_heads, here, high - low)
            hidden = _hidden(first + at, here, low, high, window, causal=plan.causal, device=scores.device)
            shares = _softmax(scores.masked_fill_(hidden, -torch.inf), sinks).to(value.dtype)
            summed = torch.bmm(shares.view(kv_heads, -1, high - low), seen_values[:, low:high])
            out[row + at : row + at + here] = summed.view(heads, here, -1).transpose(0, 1)
    return out


def _seen(first: int, rows: int, keys: int, window: int | None, *, causal: bool) -> tuple[int, int]:
    """The keys that any of `rows` queries from `first` on sees."""
    low = 0 if window is None else max(0, first - window + 1)
    if causal:
        return low, min(keys, first + rows)
    return low, keys if window is None else min(keys, first + rows - 1 + window)


def _hidden(
    first: int, rows: int, low: int, high: int, window: int | None, *, causal: bool, device: torch.device
) -> torch.Tensor:
    """(rows, keys): what a query does not see."""
    distance = torch.arange(first, first + rows, device=device)[:, None] - torch.arange(low, high, device=device)
    hidden = distance < 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
    return hidden if window is None else hidden | (distance.abs() >= window)


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    if sinks is None:
        return scores.softmax(dim=-1, dtype=torch.float32)
    column = sinks.expand(scores.shape[0], scores.shape[1], scores.shape[2], 1)
    return torch.cat([scores, column], dim=-1).softmax(dim=-1, dtype=torch.float32)[..., :-1]
