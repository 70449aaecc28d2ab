"""What decides a model's numbers, hashed: weights, architecture, tokenizer, template, rendering options, dtype.

Not in it: where the folder lies, what the configuration calls the model, and the temperature.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Fingerprint

INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
WITHOUT_EFFECT = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that Transformers loads from a folder, in a fixed order; empty when there are none."""
    index = folder / INDEX
    if index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [folder / name for name in sorted(names)]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else []


def fingerprint(folder: Path, config: ClassifierConfig, max_tokens: int) -> Fingerprint:
    """Reads all of the model's files; `max_tokens` is what the model really reads."""
    digest = hashlib.sha256()
    for part in _parts(folder, config, max_tokens):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return Fingerprint(f"sha256:{digest.hexdigest()}", "weights")


def _parts(folder: Path, config: ClassifierConfig, max_tokens: int) -> Iterator[bytes]:
    yield _canonical(_effective(json.loads((folder / "config.json").read_text())))
    yield _canonical(
        {
            "dtype": config.dtype,
            "max_tokens": max_tokens,
            "on_too_long": config.on_too_long,
            "on_unfinished": config.on_unfinished,
            "reasoning": config.reasoning,
        }
    )
    code = [path.name for path in sorted(folder.glob("*.py"))] if config.trust_remote_code else []
    for path in _existing(folder, [*TOKENIZER_FILES, *code]):
        yield path.name.encode()
        yield _canonical(_effective(json.loads(path.read_text()))) if path.suffix == ".json" else path.read_bytes()
    for path in weight_files(folder):
        with path.open("rb") as file:
            yield hashlib.file_digest(file, "sha256").digest()


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _effective(value: Any) -> Any:
    """A configuration without what changes no number: paths and versions, wherever they stand in it."""
    if isinstance(value, dict):
        return {key: _effective(inner) for key, inner in value.items() if key not in WITHOUT_EFFECT}
    return value


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode()
