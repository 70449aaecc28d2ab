"""Decoder layers whose second half is one native operator: both residual sums, the norm and the feed-forward layer.

A plain model writes what it has just computed to memory seven times in the second half; the operator does so once.
"""

from typing import Any

import torch
from torch import nn

from reward_service.engine.packed.gated import is_gated
from reward_service.engine.packed.native import feed_forward as native
from reward_service.engine.packed.native.feed_forward import Activation

ACTIVATIONS = {
    "SiLU": Activation(1.0, 0.0),
    "SiLUActivation": Activation(1.0, 0.0),
    "GELUTanh": Activation(1.5957691216, 0.0713548163),
}
"""By the name of their module; GELU with a tanh has 2 * sqrt(2 / pi), and .044715 times that."""
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
LINEARS = ("gate_proj", "up_proj", "down_proj")
SAME = 0.02
"""Most that a fused layer may differ from the plain one, relative to the largest change that the plain one makes."""
PROBE_ROWS = 40
PROBE_SCALES = (1.0, 2.0**-7)
"""Of the probes' hidden states: where they are small, the feed-forward layer shows, where they are not, the sums."""
OF_ATTENTION = {"attention_mask": object(), "position_embeddings": object()}
"""What a probe hands a layer for its attention."""

_FUSED: dict[type, type] = {}


class FusedLayers:
    """Fuses the layers that have Llama's second half, by their parts and by what they compute, until `undo`."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = [(layer, type(layer)) for layer in layers if _fusable(layer)]
        for layer, plain in self._layers:
            layer.__class__ = fused(plain)

    @property
    def layers(self) -> list[nn.Module]:
        """Those that are fused."""
        return [layer for layer, _ in self._layers]

    def undo(self) -> None:
        """Makes the layers what they were."""
        for layer, plain in self._layers:
            layer.__class__ = plain


@torch.library.custom_op("reward_service::second_half", mutates_args=())
def second_half(
    residual: torch.Tensor,
    added: torch.Tensor,
    norm: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    epsilon: float,
    activation: str,
) -> torch.Tensor:
    """(..., hidden): what `native.feed_forward` gives."""
    return native.feed_forward(
        residual, added, norm, gate, up, down, epsilon=epsilon, activation=ACTIVATIONS[activation]
    )


@second_half.register_fake
def _(residual: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(residual, memory_format=torch.contiguous_format)


def fused(plain: type) -> Any:
    """The class of layers like `plain` with a fused second half: one for all, since compiled code knows classes."""
    if plain in _FUSED:
        return _FUSED[plain]

    def forward(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)[0]
        return _second_half(self, hidden_states, attended)

    _FUSED[plain] = type(f"Fused{plain.__name__}", (plain,), {"forward": forward})
    return _FUSED[plain]


def _second_half(layer: Any, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    outputs: torch.Tensor = second_half(
        residual,
        attended,
        norm.weight,
        mlp.gate_proj.weight,
        mlp.up_proj.weight,
        mlp.down_proj.weight,
        norm.variance_epsilon,
        type(mlp.act_fn).__name__,
    )
    return outputs


def _fusable(layer: nn.Module) -> bool:
    """Whether a layer's second half is what the operator computes."""
    parts, mlp = dict(layer.named_children()), getattr(layer, "mlp", None)
    if (
        set(parts) != LAYER
        or not isinstance(mlp, nn.Module)
        or {name for name, _ in mlp.named_children()} != {*LINEARS, "act_fn"}
    ):
        return False
    norm, linears = parts["post_attention_layernorm"], [getattr(mlp, name) for name in LINEARS]
    if any(type(linear) is not nn.Linear or linear.bias is not None for linear in linears):
        return False
    if type(mlp.act_fn).__name__ not in ACTIVATIONS or not hasattr(norm, "variance_epsilon"):
        return False
    weights = [getattr(norm, "weight", None), *(linear.weight for linear in linears)]
    if any(weight is None or weight.device.type != "cpu" or weight.dtype != torch.bfloat16 for weight in weights):
        return False
    return native.supported(linears[0].in_features, linears[0].out_features) and _same(layer, linears[0].in_features)


def _same(layer: Any, hidden: int) -> bool:
    """Whether a layer computes what its parts say, to the last bit, and the operator gives nearly the same.

    What the attention gives is made up, the same for all.
    """
    numbers = torch.Generator().manual_seed(0)
    attention = layer.self_attn
    try:
        for scale in PROBE_SCALES:
            rows, attended = (
                scale * torch.randn(1, PROBE_ROWS, hidden, generator=numbers).bfloat16() for _ in range(2)
            )
            layer.self_attn = given = _Given(attended)
            with torch.inference_mode():
                plain, expected = layer(rows, **OF_ATTENTION), _by_parts(layer, rows + attended)
                found = _second_half(layer, rows, attended)
                as_said = torch.equal(plain, expected) and given.only(layer.input_layernorm(rows))
            change = (expected.float() - rows.float()).abs().max()
            if not as_said or not ((found.float() - expected.float()).abs() <= SAME * change).all():
                return False
        return is_gated(layer.mlp)
    except Exception:  # a layer that wants more, or gives something else
        return False
    finally:
        layer.self_attn = attention


def _by_parts(layer: Any, summed: torch.Tensor) -> torch.Tensor:
    """Llama's second half, behind its first sum."""
    outputs: torch.Tensor = summed + layer.mlp(layer.post_attention_layernorm(summed))
    return outputs


class _Given(nn.Module):
    """Stands in for a layer's attention, and keeps what it is given."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs
        self.arguments: dict[str, Any] = {}

    def forward(self, **arguments: Any) -> tuple[torch.Tensor, None]:
        self.arguments = arguments
        return self.outputs, None

    def only(self, hidden_states: torch.Tensor) -> bool:
        """Whether it was given these hidden states and what the layer was handed, and nothing else."""
        others = {name: given for name, given in self.arguments.items() if given is not None and given is not False}
        return torch.equal(others.pop("hidden_states"), hidden_states) and others == OF_ATTENTION
