"""Language-model warm-up: a small decoder reads the training texts before it learns what people prefer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from reward_service.training.optimization import Schedule, optimizer, step

IGNORED = -100
LOGIT_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Architecture:
    """Size of the decoder. Heads are 64 wide, which paged-attention kernels require."""

    hidden_size: int = 192
    intermediate_size: int = 512
    num_layers: int = 4
    num_heads: int = 3
    max_position_embeddings: int = 2048


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Hyper-parameters of the warm-up; lengths in tokens."""

    epochs: int = 3
    block_tokens: int = 256
    batch_blocks: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05


def decoder(tokenizer: PreTrainedTokenizerFast, architecture: Architecture, seed: int) -> Qwen3ForCausalLM:
    """A fresh Qwen3 decoder (arXiv:2505.09388) with tied embeddings, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=architecture.hidden_size,
            intermediate_size=architecture.intermediate_size,
            num_hidden_layers=architecture.num_layers,
            num_attention_heads=architecture.num_heads,
            num_key_value_heads=architecture.num_heads,
            head_dim=64,
            max_position_embeddings=architecture.max_position_embeddings,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def next_token_loss(hidden: Tensor, embedding: Tensor, token_ids: Tensor) -> Tensor:
    """Mean of -log p(x[t+1] | x[..t]) in nats, tied embeddings: hidden (b, t, h), embedding (v, h), token_ids (b, t).

    Targets equal to `IGNORED` do not count. Rows are taken a thousand at a time: logits of a whole batch leave the
    processor's cache.
    """
    targets = token_ids[:, 1:].flatten()
    counted = (targets != IGNORED).nonzero().squeeze(-1)
    rows = hidden[:, :-1].flatten(0, 1)[counted]
    parts = zip(torch.split(rows, LOGIT_ROWS), torch.split(targets[counted], LOGIT_ROWS), strict=True)
    total = sum(
        (cross_entropy(part @ embedding.T, target, reduction="sum") for part, target in parts), rows.new_zeros(())
    )
    return total / max(len(counted), 1)


def warm_up(model: Qwen3ForCausalLM, documents: Sequence[Sequence[int]], config: WarmUp, seed: int) -> list[float]:
    """Train `model` in place on the token ids of `documents`; the mean loss of each epoch (nats a token)."""
    generator = torch.Generator().manual_seed(seed)
    tokens_per_batch = config.block_tokens * config.batch_blocks
    batches_per_epoch = sum(map(len, documents)) // tokens_per_batch
    adamw = optimizer(model, config.weight_decay)
    schedule = Schedule(config.learning_rate, total_steps=config.epochs * batches_per_epoch)
    model.train()
    losses = []
    for epoch in range(config.epochs):
        total = 0.0
        for index, batch in enumerate(_batches(documents, config, generator)):
            total += _warm_up_step(model, adamw, schedule.at(epoch * batches_per_epoch + index), batch)
        losses.append(total / max(batches_per_epoch, 1))
    return losses


def _warm_up_step(model: Qwen3ForCausalLM, adamw: torch.optim.Optimizer, learning_rate: float, batch: Tensor) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=batch, use_cache=False).last_hidden_state
        loss = next_token_loss(hidden, model.lm_head.weight, batch)
    step(model, adamw, loss, learning_rate)
    return float(loss.detach())


def _batches(documents: Sequence[Sequence[int]], config: WarmUp, generator: torch.Generator) -> Iterator[Tensor]:
    """Documents in random order, joined and cut into (batch_blocks, block_tokens) batches; the rest is left out."""
    order = torch.randperm(len(documents), generator=generator).tolist()
    stream = torch.tensor([token for index in order for token in documents[index]])
    tokens_per_batch = config.block_tokens * config.batch_blocks
    for start in range(0, len(stream) - tokens_per_batch + 1, tokens_per_batch):
        yield stream[start : start + tokens_per_batch].view(config.batch_blocks, config.block_tokens)
