"""Reward models from pairs: P(chosen beats rejected) = sigmoid(r_chosen - r_rejected) (Bradley and Terry, 1952)."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from reward_service.training.language_model import IGNORED, next_token_loss
from reward_service.training.optimization import Schedule, optimizer, step
from reward_service.training.preferences import Pair
from reward_service.training.tokenizer import render

TokenPair = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class BradleyTerry:
    """Hyper-parameters of the preference stage; lengths in tokens."""

    epochs: int = 2
    batch_pairs: int = 16
    max_tokens: int = 160
    learning_rate: float = 3e-4
    weight_decay: float = 0.1
    language_weight: float = 0.1
    language_share: float = 0.25
    centering_weight: float = 0.01
    token_dropout: float = 0.1


def preference_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean of -log sigmoid(r_c - r_r) in nats; rewards (pairs,)."""
    return -logsigmoid(chosen - rejected).mean()


def centering_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean of (r_c + r_r)^2 (arXiv:2312.09244): pairs leave the offset of a prompt free, this holds it near 0."""
    return (chosen + rejected).square().mean()


def tokenize(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair], max_tokens: int) -> list[TokenPair]:
    """Token ids of the two conversations of each pair."""
    return [
        (
            render(tokenizer, pair.conversation(pair.chosen), max_tokens),
            render(tokenizer, pair.conversation(pair.rejected), max_tokens),
        )
        for pair in pairs
    ]


def reward_model(language_model: Qwen3ForCausalLM, seed: int) -> Qwen3ForSequenceClassification:
    """The warmed-up decoder with one score on its last token; a copy, so that several models start from one warm-up."""
    torch.manual_seed(seed)
    config = deepcopy(language_model.config)
    config.num_labels = 1
    model = Qwen3ForSequenceClassification(config)
    model.model.load_state_dict(language_model.model.state_dict())
    torch.nn.init.normal_(model.score.weight, std=config.hidden_size**-0.5 / 4)
    return model


def train(model: Qwen3ForSequenceClassification, pairs: Sequence[TokenPair], config: BradleyTerry, seed: int) -> None:
    """Train `model` in place on all `pairs`; the weights of the last step stay."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    batches_per_epoch = -(-len(pairs) // config.batch_pairs)
    adamw = optimizer(model, config.weight_decay)
    schedule = Schedule(config.learning_rate, total_steps=config.epochs * batches_per_epoch)
    model.train()
    for epoch in range(config.epochs):
        for index, batch in enumerate(_batches(pairs, config.batch_pairs, generator)):
            loss = _loss(model, batch, config, generator)
            step(model, adamw, loss, schedule.at(epoch * batches_per_epoch + index))
    model.train(False)


@torch.no_grad()
def score(
    model: Qwen3ForSequenceClassification, conversations: Sequence[list[int]], batch_size: int = 64
) -> NDArray[np.float64]:
    """Raw rewards (n,) of tokenized conversations, computed in the model's own dtype."""
    order = sorted(range(len(conversations)), key=lambda index: len(conversations[index]))
    rewards = np.empty(len(conversations))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        ids, lengths = pad([conversations[index] for index in indices], _pad_id(model))
        rewards[indices] = _rewards(model, _hidden(model, ids), lengths).float().numpy()
    return rewards


def margins(model: Qwen3ForSequenceClassification, pairs: Sequence[TokenPair]) -> NDArray[np.float64]:
    """r_chosen - r_rejected of each pair, (n,)."""
    rewards = score(model, [conversation for pair in pairs for conversation in pair])
    chosen, rejected = rewards.reshape(-1, 2).T
    difference: NDArray[np.float64] = chosen - rejected
    return difference


def pad(conversations: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(n, longest) token ids padded on the right, and lengths (n,)."""
    lengths = torch.tensor([len(ids) for ids in conversations])
    rows = [torch.tensor(ids) for ids in conversations]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id), lengths


def _loss(
    model: Qwen3ForSequenceClassification, batch: Sequence[TokenPair], config: BradleyTerry, generator: torch.Generator
) -> Tensor:
    conversations = [chosen for chosen, _ in batch] + [rejected for _, rejected in batch]
    ids, lengths = pad(conversations, _pad_id(model))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = _hidden(model, _drop(ids, _pad_id(model), lengths, config.token_dropout, generator))
        language = next_token_loss(
            hidden, model.model.embed_tokens.weight, _targets(ids, lengths, config.language_share, generator)
        )
        rewards = _rewards(model, hidden, lengths)
    chosen, rejected = rewards.float().chunk(2)
    return (
        preference_loss(chosen, rejected)
        + config.centering_weight * centering_loss(chosen, rejected)
        + config.language_weight * language
    )


def _hidden(model: Qwen3ForSequenceClassification, ids: Tensor) -> Tensor:
    """Hidden states (b, t, h). Attention is causal and padding stands on the right, so no mask is needed."""
    hidden: Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def _rewards(model: Qwen3ForSequenceClassification, hidden: Tensor, lengths: Tensor) -> Tensor:
    last = hidden[torch.arange(len(lengths)), lengths - 1]
    rewards: Tensor = model.score(last).squeeze(-1)
    return rewards


def _targets(ids: Tensor, lengths: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A random share of the tokens as targets of the language loss, the others and the padding ignored."""
    counted = torch.rand(ids.shape, generator=generator) < share
    return ids.masked_fill(~counted | (torch.arange(ids.shape[1]) >= lengths[:, None]), IGNORED)


def _drop(ids: Tensor, pad_id: int, lengths: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Hide a share of the tokens behind the pad token, never a conversation's last one."""
    hidden = torch.rand(ids.shape, generator=generator) < share
    return ids.masked_fill(hidden & (torch.arange(ids.shape[1]) < lengths[:, None] - 1), pad_id)


def _batches(pairs: Sequence[TokenPair], batch_pairs: int, generator: torch.Generator) -> Iterator[list[TokenPair]]:
    """Random batches of pairs of similar length, so that little is padding."""
    order = torch.randperm(len(pairs), generator=generator).tolist()
    pool = 16 * batch_pairs
    batches = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda index: max(map(len, pairs[index])))
        batches += [near[at : at + batch_pairs] for at in range(0, len(near), batch_pairs)]
    for index in torch.randperm(len(batches), generator=generator).tolist():
        yield [pairs[item] for item in batches[index]]


def _pad_id(model: Qwen3ForSequenceClassification) -> int:
    pad_id = model.config.pad_token_id
    if pad_id is None:
        raise ValueError("the model's config names no pad token")
    return pad_id
