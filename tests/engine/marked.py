"""Tokenizers of the families that mark turns by tokens of their own, small and trained here.

`other_names` gives the same tokenizer with special tokens that are spelled in another way: what it makes of a
conversation is what a tokenizer makes of it whose special tokens the contents cannot spell.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from reward_service.config import ClassifierConfig
from reward_service.demo import FOLDER
from reward_service.engine.engine import Item, Message
from reward_service.engine.rendering import Renderer

TEMPLATES = Path(__file__).parents[1] / "reparsing" / "templates"
TEXT = [
    "What is a list, and what is a tuple? A list is a sequence; a tuple is an immutable one.",
    "if x < 1 and y > 2:\n\treturn [y | z, 'x'] # <a href='#'> and </a>",
    "Naïve Ünïcode, 漢字, 👩‍👧 and 1234 digits.  Great, thanks! You are welcome.",
    "user assistant system model think tool call INST SEP CLS start end turn im eot id header begin of text",
]


def special(*contents: str, normalized: bool = False) -> list[AddedToken]:
    """Special tokens."""
    return [AddedToken(content, special=True, normalized=normalized) for content in contents]


def plain(*contents: str, normalized: bool = False) -> list[AddedToken]:
    """Added tokens that are not called special."""
    return [AddedToken(content, special=False, normalized=normalized) for content in contents]


def template(name: str) -> str:
    """A published chat template."""
    return (TEMPLATES / f"{name}.jinja").read_text("utf-8").removesuffix("\n")


def byte_level() -> Tokenizer:
    """As those of Qwen and Llama-3."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _trained(backend, pre_tokenizers.ByteLevel.alphabet())


def _sentencepiece() -> Tokenizer:
    """As Gemma's: blanks replaced, no pre-tokenizer to speak of, special tokens in the vocabulary."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    return _trained(backend, [], "<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")


def _prefixed() -> Tokenizer:
    """As Llama-2's: a blank before the text's first word only."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return _trained(backend, [], "<unk>", "<s>", "</s>")


def _bert() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(
        TEXT * 9, trainers.WordPieceTrainer(vocab_size=600, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
    )
    return backend


def _trained(backend: Tokenizer, alphabet: Sequence[str], *tokens: str) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=list(tokens), initial_alphabet=list(alphabet), show_progress=False
    )
    backend.train_from_iterator(TEXT * 9, trainer)
    return backend


LLAMA_3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
RESERVED = tuple(f"<|reserved_special_token_{number}|>" for number in range(250))
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
CLS = "[CLS]{% for m in messages %}{{ m.content }}[SEP]{% endfor %}"
MAKE: dict[str, tuple[Callable[[], Tokenizer], list[AddedToken], str, dict[str, str]]] = {
    "qwen-3": (
        byte_level,
        [
            *special("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            *plain("<tool_call>", "</tool_call>", "<think>", "</think>"),
        ],
        template("qwen-3"),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "llama-3": (
        byte_level,
        special(*LLAMA_3, *RESERVED),
        template("llama-3"),
        {"bos_token": LLAMA_3[0], "eos_token": LLAMA_3[3]},
    ),
    "gemma": (
        _sentencepiece,
        [*special("<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), *plain("\n\n", "<table>")],
        template("gemma-3"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"},
    ),
    "mistral-v1": (
        _prefixed,
        special("<unk>", "<s>", "</s>"),
        template("mistral-v1"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "deepseek": (
        byte_level,
        [*special(*DEEPSEEK), *plain("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")],
        template("deepseek-r1"),
        {"bos_token": DEEPSEEK[0], "eos_token": DEEPSEEK[1]},
    ),
    "bert": (_bert, special("[UNK]", "[CLS]", "[SEP]", "[PAD]"), CLS, {"cls_token": "[CLS]", "sep_token": "[SEP]"}),
}


@functools.cache
def tokenizer_of(family: str) -> Any:
    """A tokenizer with its template; `demo` is that of the bundled models."""
    if family == "demo":
        return AutoTokenizer.from_pretrained(FOLDER / "models" / "helpful")
    make, added, chat_template, names = MAKE[family]
    return wrapped(make(), added, chat_template, **names)


def wrapped(backend: Tokenizer, added: Sequence[AddedToken], chat_template: str, **names: str) -> Any:
    """A tokenizer of Transformers."""
    for token in added:
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=backend, chat_template=chat_template, **names)


@functools.cache
def other_names(family: str) -> Any:
    """The family's tokenizer, with special tokens (and turn marks) that nobody spells; ids are the same."""
    _, added, chat_template, names = MAKE[family]
    document = tokenizer_of(family).backend_tokenizer.to_str()
    for token in (one.content for one in added if one.special or one.content[1:2] == "｜"):
        document = document.replace(json.dumps(token, ensure_ascii=False), json.dumps(renamed(token)))
        chat_template = chat_template.replace(token, renamed(token))
        names = {name: renamed(one) if one == token else one for name, one in names.items()}
    return wrapped(Tokenizer.from_str(document), [], chat_template, **names)


def renamed(token: str) -> str:
    """The same ends, and what no test spells between them."""
    return f"{token[0]}zq{token.encode().hex()}qz{token[-1]}"


def ids_of(tokenizer: Any, item: Item) -> list[int]:
    """Transformers' own tokens."""
    messages: list[Message] = [dict(message) for message in item.messages or ()]
    cut = {"continue_final_message": True} if item.finish_reason == "length" else {}
    found: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **cut)
    return found


def renderer(tokenizer: Any, mode: str = "literal", pad: int | None = None, **options: Any) -> Renderer:
    config = ClassifierConfig(name="m", source="s", **{"special_tokens_in_content": mode, **options})
    return Renderer(tokenizer, config, max_tokens=config.max_tokens, pad_token_id=pad)


def said(response: str, prompt: str = "How tall?", **more: Any) -> Item:
    return Item(messages=[{"role": "user", "content": prompt}, {"role": "assistant", "content": response}], **more)
