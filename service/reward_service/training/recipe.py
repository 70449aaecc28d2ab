"""The recipe: one tokenizer and one language-model warm-up for all attributes, then Bradley-Terry for each."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from reward_service.training import bradley_terry, language_model
from reward_service.training.bradley_terry import BradleyTerry
from reward_service.training.language_model import Architecture, WarmUp
from reward_service.training.margins import Margins
from reward_service.training.preferences import Message, Pair, folds
from reward_service.training.tokenizer import render, train_tokenizer

Conversation = list[Message]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the weights, beside the data and the seed."""

    vocab_size: int = 2048
    architecture: Architecture = field(default_factory=Architecture)
    warm_up: WarmUp = field(default_factory=WarmUp)
    bradley_terry: BradleyTerry = field(default_factory=BradleyTerry)


@dataclass(frozen=True, slots=True)
class Start:
    """Where every reward model of one seed begins."""

    tokenizer: PreTrainedTokenizerFast
    decoder: Qwen3ForCausalLM


def texts(pairs: Sequence[Pair]) -> list[Conversation]:
    """Each pair as two texts to read: the prompt with one response, and the other response alone.

    Chosen and rejected take turns in the first place, so that reading tells nothing about which was preferred.
    """
    conversations: list[Conversation] = []
    for index, pair in enumerate(pairs):
        first, second = (pair.chosen, pair.rejected) if index % 2 else (pair.rejected, pair.chosen)
        conversations += [pair.conversation(first), [{"role": "assistant", "content": second}]]
    return conversations


def warm_start(conversations: Sequence[Conversation], recipe: Recipe, seed: int) -> Start:
    """Tokenizer and decoder that have read `conversations`."""
    tokenizer = train_tokenizer(
        (message["content"] for conversation in conversations for message in conversation),
        recipe.vocab_size,
        recipe.architecture.max_position_embeddings,
    )
    decoder = language_model.decoder(tokenizer, recipe.architecture, seed)
    documents = [render(tokenizer, conversation) for conversation in conversations]
    language_model.warm_up(decoder, documents, recipe.warm_up, seed)
    return Start(tokenizer, decoder)


def train_reward_model(
    start: Start, pairs: Sequence[Pair], recipe: Recipe, seed: int
) -> Qwen3ForSequenceClassification:
    """Bradley-Terry on all `pairs` from the warm start; the last step's weights, rounded to bfloat16."""
    model = bradley_terry.reward_model(start.decoder, seed)
    tokens = bradley_terry.tokenize(start.tokenizer, pairs, recipe.bradley_terry.max_tokens)
    bradley_terry.train(model, tokens, recipe.bradley_terry, seed)
    nn.Module.to(model, torch.bfloat16)
    nn.Module.to(model, torch.float32)
    return model


def pair_margins(
    model: Qwen3ForSequenceClassification, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]
) -> Margins:
    """r_chosen - r_rejected (n,) over whole conversations, as long as the model reads."""
    return bradley_terry.margins(model, bradley_terry.tokenize(tokenizer, pairs, model.config.max_position_embeddings))


def out_of_fold_margins(start: Start, pairs: Sequence[Pair], recipe: Recipe, seed: int, count: int) -> Margins:
    """Margins (n,) of each pair by a model that was trained on the other folds, grouped by prompt."""
    result = np.empty(len(pairs))
    for fold in folds(pairs, count):
        left_out = set(fold)
        rest = [pair for index, pair in enumerate(pairs) if index not in left_out]
        model = train_reward_model(start, rest, recipe, seed)
        result[fold] = pair_margins(model, start.tokenizer, [pairs[index] for index in fold])
    return result


def save(model: Qwen3ForSequenceClassification, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in bfloat16, config, tokenizer and chat template: what `from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    served = deepcopy(model)
    nn.Module.to(served, torch.bfloat16)
    served.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    _name_class_of_all_versions(folder / "tokenizer_config.json")


def _name_class_of_all_versions(path: Path) -> None:
    """Transformers 5 writes a class name that version 4 does not know; both know `PreTrainedTokenizerFast`."""
    config = {**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")


def held_in_texts(by_attribute: Mapping[str, Sequence[Pair]]) -> list[Conversation]:
    """`texts` of all attributes, in the order of their names."""
    return [conversation for name in sorted(by_attribute) for conversation in texts(by_attribute[name])]
