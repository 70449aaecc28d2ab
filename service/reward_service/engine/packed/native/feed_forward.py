"""Calls of the native second half of a decoder layer: tensors in, tensor out."""

import ctypes
from ctypes import c_float, c_int, c_void_p
from dataclasses import dataclass

import torch

from reward_service.engine.packed.native import load


class _FeedForward(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("residual", "added", "norm", "gate", "up", "down", "out")),
        *((name, c_int) for name in ("rows", "hidden", "inner")),
        *((name, c_float) for name in ("epsilon", "linear", "cubic")),
        ("threads", c_int),
    ]


@dataclass(frozen=True, slots=True)
class Activation:
    """x * sigmoid(linear * x + cubic * x ** 3)."""

    linear: float
    cubic: float


def supported(hidden: int, inner: int) -> bool:
    """Whether this machine computes layers of that size natively."""
    library = load()
    return library is not None and bool(library.rs_feed_forward_fits(hidden, inner))


def feed_forward(
    residual: torch.Tensor,
    added: torch.Tensor,
    norm: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    *,
    epsilon: float,
    activation: Activation,
) -> torch.Tensor:
    """With x = residual + added: x + down(activation(gate(RMS norm of x)) * up(RMS norm of x)).

    Bfloat16 on a CPU: (..., hidden) twice, (hidden,), (inner, hidden) twice, (hidden, inner); gives (..., hidden).
    """
    library = load()
    if library is None:
        raise RuntimeError("the native kernels do not run on this machine")
    hidden, inner = gate.shape[1], gate.shape[0]
    given = (residual, added, norm, gate, up, down)
    if residual.shape != added.shape or any(one.dtype != torch.bfloat16 for one in given):
        raise TypeError(
            f"the native feed-forward layer takes bfloat16, not {[(*one.shape, one.dtype) for one in given]}"
        )
    tensors = [one.contiguous() for one in given]
    out = torch.empty_like(tensors[0])
    problem = _FeedForward(
        *(one.data_ptr() for one in (*tensors, out)),
        rows=out.numel() // hidden,
        hidden=hidden,
        inner=inner,
        epsilon=epsilon,
        linear=activation.linear,
        cubic=activation.cubic,
        threads=torch.get_num_threads(),
    )
    if status := library.rs_feed_forward(ctypes.byref(problem)):
        raise RuntimeError(f"the native feed-forward layer failed with status {status} at {hidden} x {inner}")
    return out
