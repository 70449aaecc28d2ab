"""Both attentions of packs equal a float64 softmax over a dense mask, for every kind of mask."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from reward_service.engine.packed import native
from reward_service.engine.packed.blocks import block_attention
from reward_service.engine.packed.flex import FlexAttention
from reward_service.engine.packed.native.attention import NativeAttention, native_attention
from reward_service.engine.packed.plan import Blocks, Plan, encoder_plan, shared_plan
from tests.engine.packed.packs import items

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 7},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 3.0, 0.0])},
    "all": {"window": 40, "softcap": 5.0, "sinks": torch.tensor([0.5, -1.0, 3.0, 0.0])},
}


def dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: Plan,
    blocks: Blocks,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """(rows, heads, value dim) by the definition, in float64."""
    query, key, value = query.double(), key.double(), value.double()
    group = query.shape[0] // key.shape[0]
    out = torch.zeros((query.shape[1], query.shape[0], value.shape[2]), dtype=torch.float64)
    for block in range(len(blocks.row)):
        spans = [plan.spans[i] for i in blocks.read[blocks.offsets[block] : blocks.offsets[block + 1]]]
        tokens = [t for s in spans for t in range(s.start, s.start + s.length)]
        for i in range(blocks.rows[block]):
            at = blocks.first[block] + i
            kept = [t for j, t in enumerate(tokens) if _sees(at, j, window, causal=plan.causal)]
            for head in range(query.shape[0]):
                scores = key[head // group, kept] @ query[head, blocks.row[block] + i] * scale
                scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
                if sinks is not None:
                    scores = torch.cat([scores, sinks[head : head + 1].double()])
                out[blocks.row[block] + i, head] = scores.softmax(0)[: len(kept)] @ value[head // group, kept]
    return out


def _sees(at: int, key: int, window: int | None, *, causal: bool) -> bool:
    return (not causal or key <= at) and (window is None or abs(at - key) < window)


def tensors(plan: Plan, rows: int, dim: int, value_dim: int, dtype: torch.dtype) -> Tensors:
    """Queries of 4 heads, keys and values of 2, laid out as models lay them out."""
    torch.manual_seed(3)
    query, key, value = (
        torch.randn(rows, 4, dim),
        torch.randn(plan.tokens, 2, dim),
        torch.randn(plan.tokens, 2, value_dim),
    )
    return query.to(dtype).transpose(0, 1), key.to(dtype).transpose(0, 1), value.to(dtype).transpose(0, 1)


def in_float32(given: Tensors) -> Tensors:
    return given[0].float(), given[1].float(), given[2].float()


@pytest.fixture(scope="module")
def compiled() -> NativeAttention:
    library = native.load()
    if library is None:
        pytest.skip("this machine has no AMX or no C++ compiler: the native attention cannot run here")
    return NativeAttention(library)


PLANS: dict[str, Callable[[], Plan]] = {
    "shared": lambda: shared_plan(items()),
    "long spans": lambda: shared_plan(items(1, prefixes=(150, 16), longest=200)),
    "encoder": lambda: encoder_plan(items(2)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLANS)
def test_block_attention_is_the_definition(name: str, kind: str) -> None:
    plan = PLANS[name]()
    for blocks, rows in ((plan.blocks, plan.tokens), (plan.pooled_blocks, len(plan.pooled))):
        given = tensors(plan, rows, 16, 16, torch.float32)
        options: dict[str, Any] = {"scale": 0.3, "window": None, "softcap": None, "sinks": None, **KINDS[kind]}
        found = block_attention(*given, plan, blocks, **options)
        torch.testing.assert_close(found.double(), dense(*given, plan, blocks, **options), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dims", [(64, 64), (16, 16), (80, 80), (192, 128), (256, 256), (40, 24)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLANS)
def test_the_native_attention_is_the_definition(
    compiled: NativeAttention, name: str, kind: str, dims: tuple[int, int]
) -> None:
    plan = PLANS[name]()
    options: dict[str, Any] = {"scale": dims[0] ** -0.5, "window": None, "softcap": None, "sinks": None, **KINDS[kind]}
    for blocks, rows in ((plan.blocks, plan.tokens), (plan.pooled_blocks, len(plan.pooled))):
        given = tensors(plan, rows, *dims, torch.bfloat16)
        found = compiled(*given, plan, blocks, **options)
        reference = block_attention(*in_float32(given), plan, blocks, **options)
        torch.testing.assert_close(found.float(), reference, atol=0.03, rtol=0.02)
        error = (found.float() - reference).abs().mean() / reference.abs().mean()
        assert error < 0.004  # bfloat16 rounds by 0.2 % on average


def test_scores_far_apart_neither_overflow_nor_vanish(compiled: NativeAttention) -> None:
    plan = shared_plan(items())
    query, key, value = tensors(plan, plan.tokens, 64, 64, torch.bfloat16)
    options: dict[str, Any] = {"scale": 50.0, "window": None, "softcap": None, "sinks": None}
    found = compiled(query, key, value, plan, plan.blocks, **options).float()
    assert torch.isfinite(found).all()
    reference = block_attention(query.float(), key.float(), value.float(), plan, plan.blocks, **options)
    torch.testing.assert_close(found, reference, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("window", [2**31, 2**32 + 7])
def test_a_window_beyond_32_bits_is_none(compiled: NativeAttention, window: int) -> None:
    plan = shared_plan(items())
    given = tensors(plan, plan.tokens, 64, 64, torch.bfloat16)
    options: dict[str, Any] = {"scale": 0.1, "softcap": None, "sinks": None}
    expected = compiled(*given, plan, plan.blocks, window=None, **options)
    assert torch.equal(compiled(*given, plan, plan.blocks, window=window, **options), expected)


def test_not_a_number_stays_with_the_item_that_has_it(compiled: NativeAttention) -> None:
    plan = encoder_plan(items())
    query, key, value = tensors(plan, plan.tokens, 64, 64, torch.bfloat16)
    poisoned = plan.spans[4]
    key = key.clone()
    key[:, poisoned.start + poisoned.length - 1] = torch.nan
    found = compiled(query, key, value, plan, plan.blocks, scale=0.1, window=None, softcap=None, sinks=None)
    bad = torch.isnan(found).flatten(1).any(1).numpy()
    inside = np.zeros(plan.tokens, dtype=bool)
    inside[poisoned.start : poisoned.start + poisoned.length] = True
    assert (bad == inside).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_that_is_not_a_number_stays_one(compiled: NativeAttention, kind: str) -> None:
    plan = shared_plan(items())
    query, key, value = tensors(plan, plan.tokens, 64, 64, torch.bfloat16)
    query[:, 3] = torch.nan
    options: dict[str, Any] = {"scale": 0.1, "window": None, "softcap": None, "sinks": None, **KINDS[kind]}
    found = compiled(query, key, value, plan, plan.blocks, **options)
    assert torch.isnan(found).flatten(1).any(1).nonzero().flatten().tolist() == [3]


def test_the_native_attention_is_taken_for_bfloat16_on_a_cpu_only(compiled: NativeAttention) -> None:
    one = torch.zeros((1, 4, 3, 64))
    assert native_attention(one.bfloat16(), one.bfloat16()) is not None
    assert native_attention(one, one) is None
    assert native_attention(torch.zeros((1, 4, 3, 512), dtype=torch.bfloat16), one.bfloat16()) is None
    assert dataclasses.is_dataclass(compiled)


def test_without_a_compiler_torch_computes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(native, "_runs_here", lambda: True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.load.cache_clear()
    try:
        assert native.load() is None
        assert "cannot be compiled" in caplog.text
    finally:
        native.load.cache_clear()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLANS)
def test_flex_attention_has_the_same_masks(name: str, kind: str) -> None:
    plan, attend = PLANS[name](), FlexAttention(compiled=False)
    for blocks, rows in ((plan.blocks, plan.tokens), (plan.pooled_blocks, len(plan.pooled))):
        given = tensors(plan, rows, 16, 16, torch.float32)
        options: dict[str, Any] = {"scale": 0.3, "window": None, "softcap": None, "sinks": None, **KINDS[kind]}
        found = attend(*given, plan, blocks, **options)
        torch.testing.assert_close(found, block_attention(*given, plan, blocks, **options), atol=1e-5, rtol=1e-5)
