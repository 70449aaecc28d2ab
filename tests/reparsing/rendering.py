"""Conversations rendered by chat templates, through Transformers as trainers do it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from reward_service.reparsing import Message

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Written:
    """A chat template: its special tokens, the family it is of, whether it trims contents, how it treats a system."""

    name: str
    family: str
    bos: str
    eos: str
    trims: bool = False
    system: bool = True

    def render(self, messages: Sequence[Message], *, open_turn: bool = False, **variables: Any) -> str:
        """The text of messages; with `open_turn` it ends where the assistant's turn begins."""
        text = tokenizer(self).apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=open_turn, **variables
        )
        assert isinstance(text, str)
        return text


@cache
def tokenizer(written: Written) -> PreTrainedTokenizerFast:
    """A tokenizer that does nothing but render."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, unk_token="x")),
        bos_token=written.bos,
        eos_token=written.eos,
        chat_template=(FOLDER / f"{written.name}.jinja").read_text(encoding="utf-8").removesuffix("\n"),
    )


DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
TEMPLATES = [
    Written("qwen-2.5", "chatml", "<|endoftext|>", "<|im_end|>"),
    Written("qwen-3", "chatml", "<|endoftext|>", "<|im_end|>"),
    Written("llama-3", "llama-3", "<|begin_of_text|>", "<|eot_id|>", trims=True),
    Written("llama-3.1", "llama-3", "<|begin_of_text|>", "<|eot_id|>", trims=True),
    Written("gemma-3", "gemma", "<bos>", "<end_of_turn>", trims=True, system=False),
    Written("gemma-4", "gemma-4", "<bos>", "<turn|>", trims=True),
    Written("mistral-v1", "mistral", "<s>", "</s>", system=False),
    Written("mistral-v1-spaced", "mistral", "<s>", "</s>", system=False),
    Written("mistral-v3", "mistral", "<s>", "</s>", trims=True, system=False),
    Written("mistral-v3-tekken", "mistral", "<s>", "</s>", system=False),
    Written("mistral-v7", "mistral", "<s>", "</s>"),
    Written("mistral-v7-tekken", "mistral", "<s>", "</s>"),
    Written("deepseek-v2", "deepseek", *DEEPSEEK),
    Written("deepseek-r1", "deepseek", *DEEPSEEK),
    Written("deepseek-v3.1", "deepseek", *DEEPSEEK),
    Written("zephyr", "zephyr", "<s>", "</s>"),
]
BY_NAME = {written.name: written for written in TEMPLATES}


def user(content: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def system(content: str) -> Message:
    """A system prompt."""
    return {"role": "system", "content": content}
