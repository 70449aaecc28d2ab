"""What decides a model's numbers, hashed: weights, architecture, tokenizer, template, rendering options, dtype.

With `trust_remote_code`, the folder's Python files too. Not in it: where the folder lies, its other files, what the
configuration calls the model, and the temperature.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Fingerprint

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer*",
    "*.model",
    "*vocab*",
    "merges*",
    "special_tokens*",
    "added_tokens*",
    "chat_template*",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "tekken.json",
    "normalizer.json",
    "emoji.json",
    "byte_maps.json",
    "word_*.json",
    "dict.txt",
)
"""What the tokenizers and templates of Transformers read, by name: a folder may also hold records and snapshots of
references, which decide no number."""
CONFIGS = ("config.json", "tokenizer_config.json")
WITHOUT_EFFECT = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
"""Keys of these files, at their top level, that change no number: paths and versions, and what the service sets."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that Transformers loads from a folder, in a fixed order; empty when there are none.

    A single file goes before an index.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    names = set(json.loads(index.read_bytes())["weight_map"].values())
    return [folder / name for name in sorted(names)]


def fingerprint(folder: Path, config: ClassifierConfig, max_tokens: int) -> Fingerprint:
    """Reads all of the model's files; `max_tokens` is what the model really reads."""
    digest = hashlib.sha256()
    for part in [*description_parts(folder, config, max_tokens), *_weight_digests(folder)]:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return Fingerprint(f"sha256:{digest.hexdigest()}", "weights")


def description_parts(folder: Path, config: ClassifierConfig, max_tokens: int) -> Iterator[bytes]:
    """All but the weights: rendering options, dtype, architecture, tokenizer, template."""
    yield _canonical(
        {
            "dtype": config.dtype,
            "max_tokens": max_tokens,
            "on_too_long": config.on_too_long,
            "on_unfinished": config.on_unfinished,
            "reasoning": config.reasoning,
            "special_tokens_in_content": config.special_tokens_in_content,
        }
    )
    for path in _description_files(folder, config):
        yield path.relative_to(folder).as_posix().encode()
        yield _content(path)


Stamp = tuple[int, int, int]


def stamps(folder: Path, config: ClassifierConfig) -> dict[str, Stamp]:
    """The model's files with what changes when one is written to or replaced: inode, size, time of change (ns)."""
    stamped = {}
    for path in [*_description_files(folder, config), *weight_files(folder)]:
        status = path.stat()
        stamped[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return stamped


def _description_files(folder: Path, config: ClassifierConfig) -> list[Path]:
    patterns = ["config.json", *TOKENIZER_FILES, *(["**/*.py"] if config.trust_remote_code else [])]
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _weight_digests(folder: Path) -> Iterator[bytes]:
    for path in weight_files(folder):
        with path.open("rb") as file:
            yield hashlib.file_digest(file, "sha256").digest()


def _content(path: Path) -> bytes:
    if path.name not in CONFIGS:
        return path.read_bytes()
    return _canonical({key: value for key, value in json.loads(path.read_bytes()).items() if key not in WITHOUT_EFFECT})


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode()
