"""Tiny reward models of several tokenizer and template families, made from configs and saved as safetensors folders.

    build("pad_is_eos", folder, labels=3)

`bos`: the template writes it, and the tokenizer would add another. `pad_is_eos`: the final EOS is not pooled.
`no_system`: the template raises. `thinking`: the template rewrites `<think>`. `cutting`: tokenizer.json truncates on
the right and pads. `no_pad`: no pad token at all. `encoder`: pools at its first token. `roberta`: one that counts
positions from its pad id on.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForSequenceClassification as Classifier
from transformers import (
    AutoTokenizer,
    BertConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

SPECIAL = ["<s>", "</s>", "<pad>", "<turn>", "<end>", "[CLS]", "[SEP]"]
BOS, EOS, PAD = 0, 1, 2

TURNS = "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
TOOLS = "{% if tools %}<turn>tools\n{{ tools | tojson }}<end>\n{% endif %}"
CLOSED = "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content | trim }}</s>{% endfor %}"
GENERATION = "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}"
)
THINKING = (
    TOOLS + "{% for m in messages %}<turn>{{ m.role }}\n"
    "{% set thought = m.reasoning_content | default('') %}{% set said = m.content %}"
    "{% if m.role == 'assistant' %}{% if '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1] %}{% set said = said.split('</think>')[-1] %}"
    "{% endif %}{% if loop.last %}<think>\n{{ thought.strip() }}\n</think>\n\n{% endif %}{% endif %}"
    "{{ said.strip('\n') }}<end>\n{% endfor %}"
)
SEPARATED = "[CLS]{% for m in messages %}{{ m.content }}[SEP]{% endfor %}"

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
DECODER: dict[str, Any] = {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 8192}


def _llama(**options: Any) -> PreTrainedConfig:
    return LlamaConfig(**DECODER, pad_token_id=PAD, **options)


def _qwen2(**options: Any) -> PreTrainedConfig:
    return Qwen2Config(**DECODER, pad_token_id=EOS, **options)


def _gemma2(**options: Any) -> PreTrainedConfig:
    return Gemma2Config(**DECODER, pad_token_id=PAD, sliding_window=64, query_pre_attn_scalar=16, **options)


def _qwen3(**options: Any) -> PreTrainedConfig:
    return Qwen3Config(**DECODER, pad_token_id=PAD, **options)


def _gpt2(**options: Any) -> PreTrainedConfig:
    return GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=2048,
        initializer_range=0.3,
        bos_token_id=BOS,
        eos_token_id=EOS,
        **options,
    )


def _bert(**options: Any) -> PreTrainedConfig:
    return BertConfig(**SIZES, max_position_embeddings=2048, pad_token_id=PAD, **options)


def _roberta(**options: Any) -> PreTrainedConfig:
    return RobertaConfig(**SIZES, max_position_embeddings=514, pad_token_id=PAD, **options)


FAMILIES: dict[str, tuple[Callable[..., PreTrainedConfig], str]] = {
    "bos": (_llama, "{{ bos_token }}" + TOOLS + TURNS + GENERATION),
    "pad_is_eos": (_qwen2, CLOSED + GENERATION),
    "no_system": (_gemma2, NO_SYSTEM),
    "thinking": (_qwen3, THINKING),
    "cutting": (_qwen2, TURNS),
    "no_pad": (_gpt2, TURNS),
    "encoder": (_bert, SEPARATED),
    "roberta": (_roberta, SEPARATED),
}


def build(family: str, folder: Path, *, labels: int = 1, seed: int = 0, template: bool = True) -> Path:
    """A model folder of a family, with random weights that give scores of order one; the folder is returned."""
    make_config, chat_template = FAMILIES[family]
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = chat_template if template else None
    auto: Any = Classifier
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(make_config(vocab_size=len(tokenizer), num_labels=labels))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def nan_for_tildes(folder: Path) -> Path:
    """Makes the decoder of a folder give NaN for every text with a tilde; the folder is returned."""
    vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][[i for token, i in vocabulary.items() if "~" in token]] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_tokenizer(family: str) -> Any:
    """A byte-level BPE tokenizer with the special tokens of a family."""
    backend = Tokenizer.from_str(_trained())
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    if family in ("bos", "no_system"):
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    if family in ("pad_is_eos", "cutting"):
        tokens = {"eos_token": "</s>", "pad_token": "</s>"}
    if family == "no_pad":
        tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    if family in ("encoder", "roberta"):
        ids = [(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
        tokens = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "<pad>"}
    if family == "cutting":
        backend.enable_truncation(max_length=16)
        backend.enable_padding(length=16)
    limit = {"model_max_length": 16} if family == "cutting" else {}
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=backend, **tokens, **limit)


@functools.cache
def _trained() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(sorted(topics.values())[:40], trainer)
    return str(backend.to_str())
