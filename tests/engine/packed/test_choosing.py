"""What is compiled or fused gives the scores of what is not; what cannot be is left, and said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._inductor.codecache import CppCodeCache

from reward_service.engine.forward import Layout, run
from reward_service.engine.packed import choosing, gated
from reward_service.engine.packed.choosing import packed_forward
from reward_service.engine.packed.forward import PackedForward
from reward_service.engine.packed.native import feed_forward
from tests.engine.packed.packs import VOCABULARY, alone, item, items, model

PROBE = np.random.default_rng(4).integers(3, VOCABULARY, 128).astype(np.int32)


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models are compiled too; nothing compiled before is taken."""
    monkeypatch.setattr(choosing, "COMPILE_FROM", 0)
    torch._dynamo.reset()


def packed(whole: nn.Module, *, share: bool = True, compiled: bool = False) -> PackedForward:
    found = packed_forward(whole, PROBE, 0, share=share, compiled=compiled, max_tokens=200)
    assert found is not None
    return found


@pytest.mark.usefixtures("compiling")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_compiled_layers_give_the_same_for_every_length(caplog: pytest.LogCaptureFixture) -> None:
    whole = model("llama")
    expected = [alone(whole, batch) for batch in (items(), items(1), [item([5]), item([6, 7])])]
    forward = packed(whole, compiled=True)
    assert "without compilation" not in caplog.text
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for batch, scores in zip((items(), items(1), [item([5]), item([6, 7])]), expected, strict=True):
        np.testing.assert_allclose(run(forward, batch), scores, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= before + 1


@pytest.mark.usefixtures("compiling")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_half_written_library_of_an_earlier_compilation_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    whole, batch = model("llama"), items()
    expected = alone(whole, batch)
    packed(whole, compiled=True)
    for library in tmp_path.rglob("*.main.so"):
        library.unlink()  # the loaded one stays as it is
        library.write_bytes(b"")
    torch._dynamo.reset()
    CppCodeCache.cache_clear()
    forward = packed(model("llama"), compiled=True)
    assert "without compilation" not in caplog.text
    np.testing.assert_allclose(run(forward, batch), expected, atol=1e-4)
    assert all(library.stat().st_size for library in tmp_path.rglob("*.main.so"))


@pytest.mark.usefixtures("compiling")
def test_without_a_compiler_layers_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*_: object, **__: object) -> object:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", no_compiler)
    whole = model("llama")
    expected = alone(whole, items())
    np.testing.assert_allclose(run(packed(whole, compiled=True), items()), expected, atol=1e-4)
    assert "run without compilation" in caplog.text
    assert "No working C++ compiler" in caplog.text


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen2"])
def test_fused_feed_forward_layers_stay_within_bfloat16(family: str) -> None:
    whole = model(family, initializer_range=0.1, head_dim=16).to(torch.bfloat16)
    expected = alone(whole.float(), items())
    noise = np.abs(alone(whole.to(torch.bfloat16), items()) - expected).max()
    forward = packed(whole)
    fused = sum(type(one).__name__.startswith("Fused") for one in whole.modules())
    assert fused == 3  # the whole second half of each layer, or its feed-forward part
    assert np.abs(run(forward, items()) - expected).max() < 3 * noise
    forward.undo()
    assert not [one for one in whole.modules() if "forward" in vars(one) or type(one).__name__.startswith("Fused")]


def test_sharing_can_be_left_off() -> None:
    whole = model("llama")
    expected = alone(whole, items())
    forward = packed(whole, share=False)
    assert forward.layout is Layout.PACKED
    assert forward.prepare(items()).tokens == sum(one.tokens for one in items())
    np.testing.assert_allclose(run(forward, items()), expected, atol=1e-4)


def test_the_last_layer_computes_only_what_is_read() -> None:
    whole = model("llama")
    forward = packed(whole)
    seen: list[int] = []
    last = forward.layers.modules[-1]
    last.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))  # type: ignore[union-attr]
    run(forward, items())
    assert seen == [len(items())]


def test_forwards_may_be_nested_between_layers() -> None:
    whole = model("llama")
    outer, inner = items(), items(7)
    expected = alone(whole, outer), alone(whole, inner)
    forward = packed(whole)
    nested: list[np.ndarray] = []

    def pause() -> None:
        nested.append(run(forward, inner))

    np.testing.assert_allclose(forward.compute(forward.prepare(outer), pause), expected[0], atol=1e-4)
    assert len(nested) == 3
    for one in nested:
        np.testing.assert_allclose(one, expected[1], atol=1e-4)


def test_where_products_cannot_be_fused_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> torch.Tensor:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(gated, "gated", unsupported)
    monkeypatch.setattr(feed_forward, "supported", lambda *_: False)
    whole = model("llama", initializer_range=0.1).to(torch.bfloat16)
    forward = packed(whole)
    assert not any(type(one).__name__.startswith("Fused") for one in whole.modules())
    assert np.isfinite(run(forward, items())).all()
