"""Calls of the native attention: tensors in, tensor out."""

import ctypes
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reward_service.engine.packed.native import load
from reward_service.engine.packed.plan import Blocks, Ints, Plan

MAX_DIM = 256
LONGEST_WINDOW = 2**30
"""Longer ones are no windows: so far apart no two tokens of a pack lie, and the kernel counts in 32 bits."""


class _Strides(ctypes.Structure):
    _fields_ = [("token", c_int64), ("head", c_int64)]


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("q", "k", "v", "out")),
        *((name, _Strides) for name in ("qs", "ks", "vs", "os")),
        *((name, c_int) for name in ("heads", "kv_heads", "dim", "value_dim", "spans")),
        *((name, POINTER(c_int32)) for name in ("span_start", "span_length")),
        ("blocks", c_int),
        *((name, POINTER(c_int32)) for name in ("block_row", "block_rows", "block_first", "block_spans", "read")),
        *((name, c_float) for name in ("scale", "softcap")),
        *((name, c_int) for name in ("window", "causal")),
        ("sinks", c_void_p),
        ("threads", c_int),
    ]


@dataclass(frozen=True, slots=True)
class NativeAttention:
    """Attention over a pack on a CPU with AMX."""

    library: Any

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
        query, key, value = (_dense_rows(one) for one in (query, key, value))
        heads, rows, dim = query.shape
        out = torch.empty((rows, heads, value.shape[2]), dtype=query.dtype)
        sinks = None if sinks is None else sinks.float().contiguous()
        problem = _Problem(
            q=query.data_ptr(),
            k=key.data_ptr(),
            v=value.data_ptr(),
            out=out.data_ptr(),
            qs=_Strides(query.stride(1), query.stride(0)),
            ks=_Strides(key.stride(1), key.stride(0)),
            vs=_Strides(value.stride(1), value.stride(0)),
            os=_Strides(out.stride(0), out.stride(1)),
            heads=heads,
            kv_heads=key.shape[0],
            dim=dim,
            value_dim=value.shape[2],
            spans=len(plan.spans),
            span_start=_pointer(plan.span_start),
            span_length=_pointer(plan.span_length),
            blocks=len(blocks.row),
            block_row=_pointer(blocks.row),
            block_rows=_pointer(blocks.rows),
            block_first=_pointer(blocks.first),
            block_spans=_pointer(blocks.offsets),
            read=_pointer(blocks.read),
            scale=scale,
            softcap=softcap or 0.0,
            window=min(window or 0, LONGEST_WINDOW),
            causal=int(plan.causal),
            sinks=0 if sinks is None else sinks.data_ptr(),
            threads=torch.get_num_threads(),
        )
        if status := self.library.rs_attend(ctypes.byref(problem)):
            raise RuntimeError(f"the native attention failed with status {status} at {heads} heads of {dim}")
        return out


def native_attention(query: torch.Tensor, value: torch.Tensor) -> NativeAttention | None:
    """The native attention, where it takes such tensors on this machine."""
    fits = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not fits or max(query.shape[-1], value.shape[-1]) > MAX_DIM:
        return None
    library = load()
    return None if library is None else NativeAttention(library)


def _dense_rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _pointer(array: Ints) -> Any:
    return np.ascontiguousarray(array).ctypes.data_as(POINTER(c_int32))
