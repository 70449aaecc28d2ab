"""The native second half of a decoder layer equals its definition, and only layers that have it are given it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GraniteConfig
from transformers.models.granite.modeling_granite import GraniteDecoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP

from reward_service.engine.forward import run
from reward_service.engine.packed import native
from reward_service.engine.packed.fused import ACTIVATIONS, FusedLayers
from reward_service.engine.packed.gated import GatedLayers
from reward_service.engine.packed.layers import find_layers
from reward_service.engine.packed.native.feed_forward import feed_forward, supported
from tests.engine.packed.packs import SMALL, alone, items, model
from tests.engine.packed.test_choosing import packed

pytestmark = pytest.mark.skipif(native.load() is None, reason="needs a CPU with AMX and a C++ compiler")

SIZES = [(32, 32), (64, 96), (96, 544), (512, 1408)]
FUNCTIONS = {"SiLU": nn.functional.silu, "GELUTanh": nn.GELU(approximate="tanh")}
HALF_A_STEP = 2.0**-9
"""The most by which rounding to bfloat16 changes a number, relative to it."""


def tensors(rows: int, hidden: int, inner: int) -> tuple[torch.Tensor, ...]:
    """Residual, what is added to it, norm, gate, up, down."""
    numbers = torch.Generator().manual_seed(rows)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.randn(*shape, generator=numbers)).bfloat16()

    weights = (random(inner, hidden, scale=hidden**-0.5) for _ in range(2))
    sums = (random(rows, hidden) for _ in range(2))
    return (*sums, random(hidden), *weights, random(hidden, inner, scale=inner**-0.5))


def definition(given: tuple[torch.Tensor, ...], function: Any, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64 but for a plain model's roundings between its parts: the outputs, and the sizes of what they sum."""
    residual, added, norm, gate, up, down = (one.double() for one in given)
    x = (residual + added).bfloat16().double()
    normed = (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)).bfloat16().double()
    normed = (normed * norm).bfloat16().double()
    products = (function(normed @ gate.T) * (normed @ up.T)).bfloat16().double()
    return x + products @ down.T, x.abs() + products.abs() @ down.abs().T


def root_mean_square(numbers: torch.Tensor) -> float:
    return numbers.pow(2).mean().sqrt().item()


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize(("hidden", "inner"), SIZES)
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 300, 1111])
def test_equals_its_definition(rows: int, hidden: int, inner: int, activation: str) -> None:
    given = tensors(rows, hidden, inner)
    expected, size = definition(given, FUNCTIONS[activation], 1e-5)
    found = feed_forward(*given, epsilon=1e-5, activation=ACTIVATIONS[activation])
    assert found.shape == (rows, hidden)
    assert ((found - expected).abs() <= 2 * HALF_A_STEP * size).all()
    assert root_mean_square(found - expected) <= 1.2 * HALF_A_STEP * root_mean_square(expected)


def test_epsilon_counts_where_hidden_states_are_small() -> None:
    residual, added, *weights = tensors(8, 64, 96)
    given = (residual * 2.0**-12, added * 0, *weights)
    expected, _ = definition(given, nn.functional.silu, 1e-2)
    found = feed_forward(*given, epsilon=1e-2, activation=ACTIVATIONS["SiLU"])
    assert (found - expected).abs().max() <= 0.01 * expected.abs().max()


def test_a_token_is_the_same_whatever_lies_beside_it_and_however_many_threads_there_are() -> None:
    residual, added, *weights = tensors(600, 512, 1408)
    whole = feed_forward(residual, added, *weights, epsilon=1e-5, activation=ACTIVATIONS["SiLU"])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        some = feed_forward(residual[137:190], added[137:190], *weights, epsilon=1e-5, activation=ACTIVATIONS["SiLU"])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(whole[137:190], some)


def test_what_is_not_a_number_stays_so_and_spoils_nothing_else() -> None:
    residual, added, *weights = tensors(70, 64, 96)
    clean = feed_forward(residual, added, *weights, epsilon=1e-5, activation=ACTIVATIONS["SiLU"])
    residual[33, 5] = torch.nan
    found = feed_forward(residual, added, *weights, epsilon=1e-5, activation=ACTIVATIONS["SiLU"])
    assert found[33].isnan().all()
    others = [row for row in range(70) if row != 33]
    assert torch.equal(found[others], clean[others])


def test_large_numbers_leave_the_activation_as_they_should() -> None:
    residual, added, norm, gate, up, down = tensors(40, 64, 96)
    given = (residual, added, norm, gate * 2.0**9, up, down)
    expected, size = definition(given, nn.functional.silu, 1e-5)
    found = feed_forward(*given, epsilon=1e-5, activation=ACTIVATIONS["SiLU"])
    assert ((found - expected).abs() <= 2 * HALF_A_STEP * size).all()


@pytest.mark.parametrize(("hidden", "inner"), [(48, 96), (64, 80), (4096, 14336), (0, 32)])
def test_sizes_that_do_not_fit_are_refused(hidden: int, inner: int) -> None:
    assert not supported(hidden, inner)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "smollm3"])
def test_layers_like_llamas_are_fused_and_stay_within_bfloat16(family: str) -> None:
    whole = model(family, initializer_range=0.1, head_dim=16).to(torch.bfloat16)
    expected = alone(whole.float(), items())
    noise = np.abs(alone(whole.to(torch.bfloat16), items()) - expected).max()
    forward = packed(whole)
    assert [type(layer).__name__[:5] for layer in forward.layers.modules] == ["Fused"] * 3
    assert np.abs(run(forward, items()) - expected).max() < 3 * noise
    forward.undo()
    assert not any(type(one).__name__.startswith("Fused") for one in whole.modules())


@pytest.mark.parametrize("family", ["gemma", "gemma2", "olmo", "olmo2", "glm4", "phi3", "mixtral", "gpt2"])
def test_layers_with_another_second_half_stay_as_they_are(family: str) -> None:
    layers = find_layers(model(family, head_dim=16).to(torch.bfloat16))
    assert layers
    assert not FusedLayers(layers).layers


@pytest.mark.parametrize(
    "change",
    [{"mlp_bias": True}, {"intermediate_size": 80}, {"hidden_act": "relu"}],
    ids=["bias", "size", "activation"],
)
def test_layers_that_the_operator_cannot_compute_stay_as_they_are(change: dict[str, Any]) -> None:
    assert not FusedLayers(find_layers(model("llama", **change).to(torch.bfloat16))).layers


def test_float32_stays_as_it_is() -> None:
    assert not FusedLayers(find_layers(model("llama"))).layers


@pytest.mark.parametrize(("multiplier", "fused"), [(1.0, 1), (0.99, 0), (0.95, 0), (0.22, 0)])
def test_a_layer_of_the_same_parts_that_computes_something_else_stays_as_it_is(multiplier: float, fused: int) -> None:
    torch.manual_seed(0)
    config = GraniteConfig(**{**SMALL, "residual_multiplier": multiplier})
    layer = GraniteDecoderLayer(config, 0).to(torch.bfloat16)
    assert len(FusedLayers([layer]).layers) == fused


class Bounded(LlamaMLP):
    """As DeepSeek-V4's: nothing shows of the bound while numbers are small."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(x).clamp(max=7), self.up_proj(x).clamp(min=-7, max=7)
        outputs: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
        return outputs


class Rescaling(LlamaDecoderLayer):
    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        hidden_states: torch.Tensor = args[0]
        attended, _ = self.self_attn(hidden_states=2 * self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        outputs: torch.Tensor = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return outputs


class InATuple(LlamaDecoderLayer):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return (super().forward(*args, **kwargs),)


@pytest.mark.parametrize("kind", [Rescaling, InATuple])
def test_a_layer_that_calls_its_parts_otherwise_stays_as_it_is(kind: type[nn.Module]) -> None:
    layers = find_layers(model("llama").to(torch.bfloat16))
    for layer in layers[1:]:
        layer.__class__ = kind
    assert FusedLayers(layers).layers == layers[:1]


def test_a_feed_forward_layer_that_bounds_its_numbers_stays_as_it_is() -> None:
    body = model("llama", initializer_range=0.05).to(torch.bfloat16)
    layers = find_layers(body)
    for layer in layers[1:]:
        layer.mlp.__class__ = Bounded
    fused = FusedLayers(layers)
    assert fused.layers == layers[:1]
    fused.undo()
    GatedLayers(body)
    assert [type(layer.mlp).__name__ for layer in layers] == ["FusedLlamaMLP", "Bounded", "Bounded"]


@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_other_numbers_than_bfloat16_are_refused(at: int) -> None:
    given = [one.float() if i == at else one for i, one in enumerate(tensors(8, 64, 96))]
    with pytest.raises(TypeError, match=r"takes bfloat16, not .*float32"):
        feed_forward(*given, epsilon=1e-5, activation=ACTIVATIONS["SiLU"])
