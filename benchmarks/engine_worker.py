"""The torch engine alone, without rendering, queue and HTTP, beside the bare matrix products of its model.

python -m benchmarks.engine_worker MODEL_FOLDER SIZE
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from benchmarks.workers import answer_all
from benchmarks.workloads import linears
from torch.nn.functional import linear
from transformers import AutoModelForSequenceClassification

from reward_service.engine.heads import head_in_float32
from reward_service.engine.memory import keep_freed_memory
from reward_service.engine.packed.choosing import packed_forward
from reward_service.engine.packed.forward import PackedForward
from reward_service.engine.prefixes import order
from reward_service.engine.rendering import Rendered

PACK_TOKENS = 4096
PRODUCTS_S = 1.0


def loaded(folder: str) -> PackedForward:
    """The engine's forward for a folder, compiled."""
    keep_freed_memory()
    model = (
        AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).eval().requires_grad_(False)
    )
    head_in_float32(model, 1)
    probe = np.random.default_rng(0).integers(10, 1000, 128).astype(np.int32)
    forward = packed_forward(
        model,
        probe,
        model.config.pad_token_id,
        share=True,
        compiled=True,
        max_tokens=model.config.max_position_embeddings,
    )
    assert forward is not None
    return forward


def packs(forward: PackedForward, items: Sequence[Rendered]) -> list[list[Rendered]]:
    """Items in the order of their tokens, as many to a pack as fit."""
    made: list[list[Rendered]] = [[]]
    for index in order([one.ids for one in items]):
        if made[-1] and forward.prepare([*made[-1], items[index]]).tokens > PACK_TOKENS:
            made.append([])
        made[-1].append(items[index])
    return made


def products_per_s(size: str) -> float:
    """Floating point operations per second of the layers' matrix products, on rows of the packs' size."""
    with torch.inference_mode():
        pairs = [
            (torch.randn(PACK_TOKENS, inputs).bfloat16(), torch.randn(outputs, inputs).bfloat16())
            for outputs, inputs in linears(size)
        ]
        done, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < PRODUCTS_S:
            for rows, weights in pairs:
                linear(rows, weights)
            done += sum(2 * rows.shape[0] * weights.numel() for rows, weights in pairs)
    return done / seconds


def main(folder: str, size: str) -> None:
    """Answers `{"ids": [[...], ...]}`."""
    forward = loaded(folder)

    def measured(question: dict[str, Any]) -> dict[str, Any]:
        items = [Rendered(np.asarray(ids, dtype=np.int32), len(ids) - 1, None) for ids in question["ids"]]
        cut = packs(forward, items)
        started = time.perf_counter()
        plans = [forward.prepare(pack) for pack in cut]
        for plan in plans:
            forward.compute(plan, lambda: None)
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "distinct_tokens": sum(plan.tokens for plan in plans),
            "products_per_s": products_per_s(size),
        }

    answer_all(measured)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
