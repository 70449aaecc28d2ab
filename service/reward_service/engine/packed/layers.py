"""The layers of a body under a pack: they pause, they compile, and the last computes only what a score is read from."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from reward_service.engine.packed.attention import KeysTaken, Run, current

Call = Callable[..., Any]
RECOMPILATIONS = 64
"""Shapes and models share the code of their layers, and torch's own limit of 8 would silently give up compiling."""


class Layers:
    """Wraps the layers of a body; outside of a packed forward they are as they were."""

    def __init__(self, body: nn.Module) -> None:
        self.modules = find_layers(body)
        self.only_pooled = False
        self._original: list[Call] = [layer.forward for layer in self.modules]
        self._calls = list(self._original)
        for index, layer in enumerate(self.modules):
            layer.forward = functools.partial(self._forward, index)

    def unwrap(self) -> None:
        """Makes the layers what they were."""
        for layer in self.modules:
            del layer.forward

    def compile(self) -> None:
        """From now on layers run compiled: once for each kind of layer, for all lengths."""
        self._calls = [torch.compile(call, dynamic=True) for call in self._original]

    def allow_recompilations(self) -> None:
        """Lifts torch's limit for the calling thread: settings of its compiler hold for one thread only."""
        if torch._dynamo.config.recompile_limit < RECOMPILATIONS:
            torch._dynamo.config.recompile_limit = RECOMPILATIONS

    def uncompile(self) -> None:
        """From now on layers run as they are."""
        self._calls = list(self._original)

    def _forward(self, index: int, *args: Any, **kwargs: Any) -> Any:
        run, call = current(), self._calls[index]
        if run is None:
            return self._original[index](*args, **kwargs)
        hidden, args, kwargs = _hidden_first(self._original[index], args, kwargs)
        last = index == len(self.modules) - 1
        if run.replayed is not None:
            return run.replayed if last else hidden
        run.pause()
        at_pooled = last and self.only_pooled
        output = _at_pooled(run, call, hidden, args, kwargs) if at_pooled else call(hidden, *args, **kwargs)
        if last:
            run.last = output[0] if isinstance(output, tuple) else output
        return output


def find_layers(body: nn.Module) -> list[nn.Module]:
    """The repeated layers of a body: its longest list of modules that are in no other list."""
    lists = [module for module in body.modules() if isinstance(module, nn.ModuleList)]
    outer = [list(one) for one in lists if not any(set(one.modules()) < set(other.modules()) for other in lists)]
    return max(outer, key=len, default=[])


Arguments = tuple[Any, tuple[Any, ...], dict[str, Any]]


def _hidden_first(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The hidden states, and the other arguments of a layer."""
    if args:
        return args[0], args[1:], kwargs
    first = next(iter(inspect.signature(call).parameters))
    return kwargs[first], (), {name: value for name, value in kwargs.items() if name != first}


def _at_pooled(run: Run, call: Call, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """(1, n, hidden): the layer at the pooled tokens, which see the keys and values of all."""
    tokens, rows = hidden.shape[1], torch.from_numpy(run.plan.pooled).to(hidden.device, torch.int64)
    run.take_keys = True
    try:
        call(hidden, *args, **kwargs)
    except KeysTaken:
        pass
    finally:
        run.take_keys = False
    try:
        pick = functools.partial(_rows, rows=rows, tokens=tokens)
        picked = {name: pick(value) for name, value in kwargs.items()}
        return call(pick(hidden), *map(pick, args), **picked)
    finally:
        run.taken = None


def _rows(value: Any, rows: torch.Tensor, tokens: int) -> Any:
    """What a layer is given of some tokens, where it is given something of each."""
    if isinstance(value, tuple):
        return tuple(_rows(one, rows, tokens) for one in value)
    if not isinstance(value, torch.Tensor):
        return value
    for dim in (1, 0):
        if value.dim() > dim and value.shape[dim] == tokens and all(size == 1 for size in value.shape[:dim]):
            return value.index_select(dim, rows)
    return value
