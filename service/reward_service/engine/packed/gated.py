"""Gated feed-forward layers as two matrix products that apply activation and gate while they write: CPUs, bfloat16."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

ACTIVATIONS = {"SiLU": ("swish", ""), "SiLUActivation": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
"""How oneDNN calls an activation, by the name of its module."""
SAME = 0.05
"""Most that the fused products may differ from the layer, relative to its largest output: they round less often."""
LARGE = 2.0**10
"""Times a probe: where a layer bounds its numbers, such as those of DeepSeek-V4 do, that shows."""

_FUSED: dict[type, type] = {}


class GatedLayers:
    """Fuses the gated feed-forward layers of a body, where that is supported and gives the same, until `undo`.

    Those in `besides` stay as they are.
    """

    def __init__(self, body: nn.Module, besides: Iterable[nn.Module] = ()) -> None:
        weight, left = next(body.parameters()), {module for one in besides for module in one.modules()}
        usable = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available()
        modules = [module for module in body.modules() if usable and module not in left and _fusable(module)]
        self._modules = [(module, type(module)) for module in modules]
        for module, plain in self._modules:
            module.__class__ = fused(plain)

    def undo(self) -> None:
        """Makes the layers what they were."""
        for module, plain in self._modules:
            module.__class__ = plain


@torch.library.custom_op("reward_service::gated", mutates_args=())
def gated(rows: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, activation: str, algorithm: str) -> torch.Tensor:
    """activation(rows @ gate.T) * (rows @ up.T)."""
    linear: Any = torch.ops.mkldnn._linear_pointwise
    opened = linear(rows, gate, None, activation, [], algorithm)
    product: torch.Tensor = linear.binary(rows, opened, up, None, "mul")
    return product


@gated.register_fake
def _(rows: torch.Tensor, gate: torch.Tensor, *_: object) -> torch.Tensor:
    return rows.new_empty((*rows.shape[:-1], gate.shape[0]))


def fused(plain: type) -> Any:
    """The class of layers like `plain` with fused products: one for all of them, since compiled code knows classes."""

    if plain in _FUSED:
        return _FUSED[plain]

    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        activation, algorithm = ACTIVATIONS[type(self.act_fn).__name__]
        product = gated(hidden, self.gate_proj.weight, self.up_proj.weight, activation, algorithm)
        outputs: torch.Tensor = self.down_proj(product)
        return outputs

    _FUSED[plain] = type(f"Fused{plain.__name__}", (plain,), {"forward": forward})
    return _FUSED[plain]


def _fusable(module: nn.Module) -> bool:
    """Whether a module is a gated feed-forward layer as Llama has it, by its parts and by what it computes."""
    parts = {name: type(part) for name, part in module.named_children()}
    if set(parts) != {"gate_proj", "up_proj", "down_proj", "act_fn"} or parts["act_fn"].__name__ not in ACTIVATIONS:
        return False
    linears = [part for part in module.children() if isinstance(part, nn.Linear)]
    if len(linears) < 3 or any(linear.bias is not None for linear in linears):
        return False
    rows = torch.linspace(-2, 2, 4 * linears[0].in_features).reshape(4, -1).to(linears[0].weight.dtype)
    try:
        with torch.inference_mode():
            expected, found = module(rows).float(), fused(type(module)).forward(module, rows).float()
    except RuntimeError:  # a processor that oneDNN has no such product for
        return False
    return bool(((expected - found).abs() <= SAME * expected.abs().max()).all()) and is_gated(module)


def is_gated(module: Any) -> bool:
    """Whether a module computes what the names of its parts say, to the last bit, however large the numbers are."""
    weight = module.gate_proj.weight
    rows = torch.linspace(-2, 2, 4 * weight.shape[1]).reshape(4, -1).to(weight.dtype)
    with torch.inference_mode():
        return all(
            torch.equal(
                module(probe),
                module.down_proj(module.act_fn(module.gate_proj(probe)) * module.up_proj(probe)),
            )
            for probe in (rows, LARGE * rows)
        )
