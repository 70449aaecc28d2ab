"""1,000 real conversations, 16 responses to each prompt: packed and shared is what Transformers gives one at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import reward_service.demo
from reward_service.engine.forward import Layout, run
from reward_service.engine.heads import head_in_float32
from reward_service.engine.packed.choosing import packed_forward
from reward_service.engine.rendering import Rendered
from tests.conversations import real_groups
from tests.engine.packed.packs import alone, item

FOLDER = Path(reward_service.demo.__file__).parent / "models" / "helpful"
MOST_TOKENS = 1024
PLAIN = {"add_special_tokens": False, "verbose": False}


@pytest.fixture(scope="module")
def batch() -> list[Rendered]:
    """1,008 items, their groups mixed up."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    rendered = [
        item(tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), **PLAIN)["input_ids"][:MOST_TOKENS])
        for group in real_groups(63)
        for messages in group
    ]
    return [rendered[i] for i in np.random.default_rng(0).permutation(len(rendered))]


@pytest.fixture(scope="module")
def expected(batch: list[Rendered]) -> NDArray[np.float64]:
    """What the model gives for each in float32, one at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return alone(model, batch)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_1000_real_conversations_have_the_scores_that_they_have_alone(
    batch: list[Rendered], expected: NDArray[np.float64], dtype: torch.dtype
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    head_in_float32(model.to(dtype), 1)
    packed = packed_forward(model, batch[0].ids, model.config.pad_token_id, share=True, compiled=False, max_tokens=2048)
    assert packed is not None
    assert packed.layout is Layout.SHARED
    packs = [batch[at : at + 72] for at in range(0, len(batch), 72)]
    found = np.concatenate([run(packed, one) for one in packs])
    difference = np.abs(found - expected)
    if dtype is torch.float32:
        assert difference.max() < 1e-4
    else:
        packed.undo()
        noise = np.abs(alone(model, batch) - expected)
        assert difference.max() < 3 * noise.max()
        assert difference.mean() < 3 * noise.mean()
