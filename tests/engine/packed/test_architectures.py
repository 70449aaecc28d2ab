"""Every architecture gives packed what it gives alone, or is not packed and says so; none is silently wrong."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import logging as transformers_logging

from reward_service.engine.forward import Layout, run
from reward_service.engine.packed.choosing import packed_forward
from reward_service.engine.padded import padded_forward
from tests.engine.packed.packs import VOCABULARY, alone, item, items, model

transformers_logging.set_verbosity_error()

SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}

SHARED: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama yarn": {"rope_parameters": YARN},
    "llama no pad": {"pad_token_id": None},
    "qwen2": {},
    "qwen2 sliding": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 8},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0, **SLIDING},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, **SLIDING},
    "gpt_neox": {},
    "phi": {},
    "phi3": {},
    "olmo": {},
    "olmo2": {},
    "mixtral": EXPERTS,
    "qwen3_moe": {"head_dim": 16, "decoder_sparse_step": 1, **EXPERTS},
    "gpt_oss": {"head_dim": 16, **EXPERTS, **SLIDING},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "glm4": {"head_dim": 16},
    "starcoder2": {"sliding_window": 8},
    "smollm3": {},
    "exaone4": {"sliding_window": 8},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "head_dim": 16,
        **EXPERTS,
        **LATENT,
        "num_key_value_heads": 4,
    },
}
PACKED: dict[str, dict[str, Any]] = {
    "bert": {},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "distilbert": {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 96},
    "electra": {"embedding_size": 64},
    "roberta": {},
    "xlm-roberta": {},
    "albert": {"embedding_size": 32},
}
PLAIN: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 3, "n_head": 4},
    "falcon": {},
    "deberta-v2": {},
    "gptj": {"n_embd": 64, "n_layer": 3, "n_head": 4, "rotary_dim": 8},
    "eurobert": {},  # pools the mean of all tokens
    "doge": {},  # a mask of its own
    "minimax": {},  # layers that mix tokens without attention
    "jamba": {"num_experts": 2, "mamba_d_state": 8, "attn_layer_period": 2, "attn_layer_offset": 1},
    "phi3 longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
        },
        "original_max_position_embeddings": 64,
        "max_position_embeddings": 256,
    },
}
PROBE = np.random.default_rng(4).integers(3, VOCABULARY, 128).astype(np.int32)


def check(family: str, changes: dict[str, Any], layout: Layout | None) -> None:
    whole = model(family.split()[0], **changes)
    batch = items()
    expected = alone(whole, batch)
    pad = whole.config.pad_token_id  # type: ignore[union-attr]
    packed = packed_forward(whole, PROBE, pad, share=True, compiled=False, max_tokens=200)  # type: ignore[arg-type]
    assert (None if packed is None else packed.layout) == layout
    batches = family not in ("phi3 longrope", "jamba")
    forward = packed or padded_forward(whole, PROBE, pad, batches=batches)  # type: ignore[arg-type]
    np.testing.assert_allclose(run(forward, batch), expected, atol=1e-4)
    if packed is not None:
        packed.undo()
        np.testing.assert_array_equal(alone(whole, batch), expected)


@pytest.mark.parametrize("family", SHARED)
def test_decoders_share_beginnings(family: str) -> None:
    check(family, SHARED[family], Layout.SHARED)


@pytest.mark.parametrize("family", PACKED)
def test_encoders_lie_end_to_end(family: str) -> None:
    check(family, PACKED[family], Layout.PACKED)


@pytest.mark.parametrize("family", PLAIN)
def test_others_run_plain_and_say_so(family: str, caplog: pytest.LogCaptureFixture) -> None:
    check(family, PLAIN[family], None)
    assert "not packed" in caplog.text


@pytest.mark.parametrize("family", ["qwen2_moe", "phimoe"])
def test_a_window_that_is_only_in_the_mask_is_not_lost(family: str, caplog: pytest.LogCaptureFixture) -> None:
    """Longer than every probe, so that no number shows at load what it does."""
    changes = {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 3, **EXPERTS}
    whole = model(family, **changes)
    assert packed_forward(whole, PROBE, 0, share=True, compiled=False, max_tokens=200) is None
    assert "does not tell its attention" in caplog.text


@pytest.mark.parametrize("family", ["mistral", "starcoder2", "qwen2", "gemma3_text", "exaone4"])
def test_a_window_longer_than_every_probe_holds(family: str) -> None:
    changes = {**SHARED[family], "use_sliding_window": True, "sliding_window": 100, "max_window_layers": 1}
    whole = model(family, **changes)
    batch = [item(np.random.default_rng(i).integers(3, VOCABULARY, 90 + 20 * i)) for i in range(6)]
    expected = alone(whole, batch)
    packed = packed_forward(whole, PROBE, 0, share=True, compiled=False, max_tokens=200)
    assert packed is not None
    np.testing.assert_allclose(run(packed, batch), expected, atol=1e-4)


def test_code_of_a_models_own_is_not_packed(caplog: pytest.LogCaptureFixture) -> None:
    whole = model("llama")
    whole.__class__ = type("OwnForSequenceClassification", (type(whole),), {"__module__": "transformers_modules.own"})
    assert packed_forward(whole, PROBE, 0, share=True, compiled=False, max_tokens=200) is None
    assert "code of its own" in caplog.text


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "deepseek_v3", "modernbert"])
def test_bfloat16_is_as_near_to_float32_as_transformers_is(family: str) -> None:
    changes = {**SHARED, **PACKED}[family]
    whole, batch = model(family, **changes), items()
    expected = alone(whole, batch)
    half = whole.to(torch.bfloat16)
    noise = np.abs(alone(half, batch) - expected)
    pad = whole.config.pad_token_id  # type: ignore[union-attr]
    packed = packed_forward(half, PROBE, pad, share=True, compiled=False, max_tokens=200)  # type: ignore[arg-type]
    assert packed is not None
    difference = np.abs(run(packed, batch) - expected)
    assert difference.mean() < 3 * noise.mean()
    assert difference.max() < 3 * noise.max()
