"""What the engines are measured on: random models of two sizes, and conversations with fresh texts."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from reward_service.demo import FOLDER

Messages = list[dict[str, str]]
SPREAD = 0.7
TOKENIZER = FOLDER / "models" / "helpful"
SIZES: dict[str, dict[str, int]] = {
    "25M": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "intermediate_size": 1408,
    },
    "352M": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "intermediate_size": 3712,
    },
}


@dataclass(frozen=True, slots=True)
class Workload:
    """`prompts` prompts of `prompt_words` words with `responses` responses each; a word is a token.

    Responses have `response_words` words on average, and lengths that spread as those of real ones do: lognormal.
    """

    prompts: int
    responses: int
    prompt_words: int
    response_words: int

    def conversations(self, seed: int) -> list[Messages]:
        """Texts that no other seed has."""
        chance, words = random.Random(seed), one_token_words()
        made = []
        for _ in range(self.prompts):
            prompt = " ".join(chance.choices(words, k=self.prompt_words))
            for _ in range(self.responses):
                spread = chance.lognormvariate(-(SPREAD**2) / 2, SPREAD)
                count = min(3 * self.response_words, max(8, round(self.response_words * spread)))
                response = " ".join(chance.choices(words, k=count))
                made.append([{"role": "user", "content": prompt}, {"role": "assistant", "content": response}])
        return made


WORKLOADS = {
    "25M": {
        "grouped": Workload(32, 8, 200, 230),
        "ungrouped": Workload(256, 1, 200, 230),
        "long_prompts": Workload(8, 8, 1024, 256),
        "singles": Workload(32, 8, 200, 230),
    },
    "352M": {"grouped": Workload(8, 8, 200, 230)},
}


def build(size: str, folder: Path) -> Path:
    """A random reward model of that size in bfloat16, in `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"num_labels": 1, **SIZES[size]}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
        **shape,
    )
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def body_parameters(size: str) -> int:
    """Parameters that every token is multiplied with."""
    return sum(rows * columns for rows, columns in linears(size)) * SIZES[size]["num_hidden_layers"]


def linears(size: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of each linear layer of one decoder layer."""
    shape = SIZES[size]
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    values = hidden * shape["num_key_value_heads"] // shape["num_attention_heads"]
    attention = [(hidden, hidden), (values, hidden), (values, hidden), (hidden, hidden)]
    return [*attention, (inner, hidden), (inner, hidden), (hidden, inner)]


def rendered(conversations: Sequence[Messages]) -> list[list[int]]:
    """Token ids, as the models' template has them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
    texts = [tokenizer.apply_chat_template(one, tokenize=False) for one in conversations]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def one_token_words() -> list[str]:
    """Words that are one token of the tokenizer behind a blank."""
    tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
    return sorted(_spelt(tokenizer.get_vocab()))


def _spelt(vocabulary: dict[str, int]) -> Iterator[str]:
    return itertools.islice((t[1:] for t in sorted(vocabulary) if t[0] == "\u0120" and t[1:].isalpha()), 1000)
