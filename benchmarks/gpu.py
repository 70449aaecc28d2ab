"""The packed engine on one GPU, random weights of 0.6B and 8B shape in bfloat16: speed, matrix rate, memory.

    python -m benchmarks.gpu [--sizes 0.6B 8B] [--rounds 3] [--out benchmarks/results/gpu.json]

Needs torch and transformers alone, no server and no weights. Grouped rollouts (prompts of 512 tokens with 8 responses
of 512) and long prompts (2,048 with 8 of 256); every round has fresh tokens. `share_of_matrix_rate` is what the matrix
products of the body need for the distinct tokens, at the rate that a large product reaches here, over the time taken.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, Qwen3Config

sys.path.insert(0, str(Path(__file__).parents[1] / "service"))

from benchmarks.machine import described

from reward_service.engine.heads import head_in_float32
from reward_service.engine.packed.choosing import packed_forward
from reward_service.engine.packed.forward import PackedForward
from reward_service.engine.prefixes import order
from reward_service.engine.rendering import Rendered

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    "0.6B": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8},
}
INTERMEDIATE = {"tiny": 512, "0.6B": 3072, "8B": 12288}
WORKLOADS = {"grouped": (16, 8, 512, 512), "long_prompts": (8, 8, 2048, 256)}
PACK_TOKENS = 16_384
PRODUCT = 8192


def built(size: str, device: torch.device) -> nn.Module:
    """A random reward model, made on the device."""
    shape: dict[str, Any] = {**SHAPES[size], "intermediate_size": INTERMEDIATE[size], "num_labels": 1}
    config = Qwen3Config(vocab_size=151_936, head_dim=128, max_position_embeddings=8192, pad_token_id=0, **shape)
    torch.manual_seed(0)
    with device:
        model: nn.Module = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
    head_in_float32(model.eval().requires_grad_(False), 1)
    return model


def items(seed: int, prompts: int, responses: int, prompt: int, response: int) -> list[Rendered]:
    """Rollouts of random tokens."""
    random = np.random.default_rng(seed)
    beginnings = [random.integers(10, 150_000, prompt) for _ in range(prompts)]
    rows = [np.concatenate([b, random.integers(10, 150_000, response)]) for b in beginnings for _ in range(responses)]
    return [Rendered(row.astype(np.int32), len(row) - 1, None) for row in rows]


def packs(forward: PackedForward, batch: Sequence[Rendered]) -> list[list[Rendered]]:
    """Items in the order of their tokens, as many to a pack as fit."""
    made: list[list[Rendered]] = [[]]
    for index in order([one.ids for one in batch]):
        if made[-1] and forward.prepare([*made[-1], batch[index]]).tokens > PACK_TOKENS:
            made.append([])
        made[-1].append(batch[index])
    return made


def matrix_rate(device: torch.device) -> float:
    """Floating point operations per second of one large product."""
    size = PRODUCT if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(device)
    started = time.perf_counter()
    for _ in range(20):
        left @ right
    _wait(device)
    return 20 * 2 * size**3 / (time.perf_counter() - started)


def measured(size: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """All workloads of a size."""
    started = time.perf_counter()
    model = built(size, device)
    probe = np.random.default_rng(0).integers(10, 1000, 128).astype(np.int32)
    forward = packed_forward(model, probe, 0, share=True, compiled=True, max_tokens=8192)
    if forward is None:
        raise RuntimeError(f"the {size} model is not packed on {device}")
    body = sum(p.numel() for layer in forward.layers.modules for p in layer.parameters() if p.dim() == 2)
    ready_s = time.perf_counter() - started
    found: dict[str, Any] = {"body_parameters": body, "ready_s": round(ready_s, 1)}
    for name, shape in WORKLOADS.items():
        rows = [_round(forward, items(number, *shape), body, device) for number in range(rounds + 1)][1:]
        found[name] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    if device.type == "cuda":
        found["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return found


def _round(forward: PackedForward, batch: Sequence[Rendered], body: int, device: torch.device) -> dict[str, float]:
    cut = packs(forward, batch)
    rate = matrix_rate(device)
    started = time.perf_counter()
    distinct = 0
    for pack in cut:
        plan = forward.prepare(pack)
        forward.compute(plan, lambda: None)
        distinct += plan.tokens
    seconds = time.perf_counter() - started
    return {
        "tokens_per_s": round(sum(one.tokens for one in batch) / seconds),
        "distinct_tokens_per_s": round(distinct / seconds),
        "matrix_tflops": round(rate / 1e12, 1),
        "share_of_matrix_rate": round(2 * body * distinct / rate / seconds, 3),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["0.6B", "8B"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name(arguments.device) if arguments.device.type == "cuda" else "cpu"
    result = {
        "machine": {**described(), "device": name},
        "sizes": {size: measured(size, arguments.device, arguments.rounds) for size in arguments.sizes},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
