"""Random items that share beginnings, models made from small configs, and what Transformers says of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from reward_service.engine.rendering import Rendered

VOCABULARY = 300
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "num_labels": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}


def item(ids: Sequence[int] | NDArray[Any]) -> Rendered:
    """An item whose last token is pooled."""
    row = np.asarray(ids, dtype=np.int32)
    return Rendered(row, len(row) - 1, None)


def items(seed: int = 0, prefixes: Sequence[int] = (0, 20, 33, 64), longest: int = 41) -> list[Rendered]:
    """Items of several groups, some of one token, one that is the beginning of others, and two that are equal."""
    random = np.random.default_rng(seed)
    beginnings = [random.integers(3, VOCABULARY, length) for length in prefixes]
    batch = [
        item(np.concatenate([beginning, random.integers(3, VOCABULARY, own)]))
        for beginning in beginnings
        for own in (1, 3, 17, 30, longest)
    ]
    batch.append(item(batch[-1].ids[: prefixes[-1]]))
    batch.append(item(batch[3].ids))
    return [batch[i] for i in random.permutation(len(batch))]


def model(family: str, **changes: Any) -> nn.Module:
    """A random sequence-classification model of a family, in float32."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SMALL, **changes})
    made: nn.Module = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    return made


def alone(whole: nn.Module, batch: Sequence[Rendered]) -> NDArray[np.float64]:
    """(items, labels): what the model's own forward gives for each item by itself."""
    with torch.inference_mode():
        rows = [whole(input_ids=torch.from_numpy(one.ids)[None].long()).logits.double().numpy() for one in batch]
    return np.concatenate(rows)
