"""The attention of packs as Transformers' models call it, by the name `reward_service_packed`."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from reward_service.engine.forward import Pause
from reward_service.engine.packed.blocks import block_attention
from reward_service.engine.packed.flex import shared_kernel
from reward_service.engine.packed.native.attention import native_attention
from reward_service.engine.packed.plan import Plan

NAME = "reward_service_packed"
HARMLESS = {
    *("cache_position", "deterministic", "is_causal", "num_items_in_batch"),
    *("output_attentions", "position_ids", "use_cache"),
}
"""Arguments of a model's attention that change nothing in a pack."""


class NotPackable(RuntimeError):
    """A model's attention asks for something that a pack cannot give."""


class KeysTaken(Exception):
    """The keys and values of a layer are there; the rest of it is not computed."""


@dataclass(slots=True)
class Run:
    """One forward of a pack: what its layers and their attention need to know."""

    plan: Plan
    pause: Pause
    calls: int = 0
    windowed: int = 0
    take_keys: bool = False
    taken: tuple[torch.Tensor, torch.Tensor] | None = None
    last: torch.Tensor | None = None
    replayed: torch.Tensor | None = None


_running = threading.local()


@contextmanager
def running(plan: Plan, pause: Pause) -> Iterator[Run]:
    """Makes a plan that of the models called in this thread; runs nest."""
    outer, run = current(), Run(plan, pause)
    _running.run = run
    try:
        yield run
    finally:
        _running.run = outer


def current() -> Run | None:
    """The run of this thread."""
    return getattr(_running, "run", None)


def _kernel(query: torch.Tensor, value: torch.Tensor) -> Callable[..., torch.Tensor]:
    """What computes attention fastest for such tensors here."""
    if query.device.type == "cuda":
        return shared_kernel()
    return native_attention(query, value) or block_attention


@torch.library.custom_op("reward_service::attend", mutates_args=())
def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """(1, heads, rows, dim) queries, (1, kv heads, T, dim) keys and values: (1, rows, heads, value dim).

    An operator of its own, so that compiled layers take any plan without being compiled anew.
    """
    run = current()
    if run is None:
        raise NotPackable("packed attention is called outside of a packed forward")
    run.calls += 1
    run.windowed += window is not None
    if run.take_keys:
        run.taken = key, value
        raise KeysTaken
    (key, value), blocks = (key, value), run.plan.blocks
    if run.taken is not None:
        (key, value), blocks = run.taken, run.plan.pooled_blocks
    out = _kernel(query, value)(
        query[0], key[0], value[0], run.plan, blocks, scale=scale, window=window, softcap=softcap, sinks=sinks
    )
    return out.unsqueeze(0)


@attend.register_fake
def _(query: torch.Tensor, _key: object, value: torch.Tensor, *_: object) -> torch.Tensor:
    return query.new_empty((1, query.shape[2], query.shape[1], value.shape[3]))


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **unknown: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, T, dim) queries, keys and values: (1, T, heads, value dim), over what the plan lets each token see."""
    if asked := [name for name, given in unknown.items() if given is not None and name not in HARMLESS]:
        raise NotPackable(f"the attention of {type(module).__name__} takes {', '.join(asked)}")
    if attention_mask is not None or dropout:
        raise NotPackable(f"{type(module).__name__} gives its attention a mask or dropout of its own")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, scale, sliding_window, softcap, s_aux), None


AttentionInterface.register(NAME, packed_attention)
