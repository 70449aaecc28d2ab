"""What a fingerprint names."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from reward_service.config import ClassifierConfig
from reward_service.engine.fingerprint import fingerprint
from tests.engine.conftest import Build
from tests.engine.serving import copied


def fingerprint_of(folder: Path, **options: Any) -> str:
    return fingerprint(folder, ClassifierConfig(name="m", source=str(folder), **options), 100).value


@pytest.mark.parametrize(
    "name", ["sentencepiece.model", "tiktoken.model", "vocab.json", "tool_use.jinja", "merges.txt"]
)
def test_every_file_that_a_tokenizer_may_read_is_in_the_fingerprint(folder: Build, tmp_path: Path, name: str) -> None:
    path = copied(folder("bos"), tmp_path / "more")
    before = fingerprint_of(path)
    (path / name).write_text("{}")
    assert fingerprint_of(path) != before


@pytest.mark.parametrize("name", ["README.md", "training_record.json", "global_snapshot.json", "model.py"])
def test_files_that_decide_no_number_are_not_in_the_fingerprint(folder: Build, tmp_path: Path, name: str) -> None:
    path = copied(folder("bos"), tmp_path / "more")
    before = fingerprint_of(path)
    (path / name).write_text("{}")
    assert fingerprint_of(path) == before
    assert (fingerprint_of(path, trust_remote_code=True) != before) is (name == "model.py")


def test_tokens_named_like_keys_of_a_configuration_are_in_the_fingerprint(folder: Build, tmp_path: Path) -> None:
    path = copied(folder("bos"), tmp_path / "vocabulary")
    before = fingerprint_of(path)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["dtype"] = 7
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert fingerprint_of(path) != before


def test_versions_and_names_of_a_configuration_are_not_in_the_fingerprint(folder: Build, tmp_path: Path) -> None:
    path = copied(folder("bos"), tmp_path / "versions")
    before = fingerprint_of(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "transformers_version": "0", "use_cache": "?"}))
    assert fingerprint_of(path) == before


def test_the_fingerprint_is_of_the_weights_that_transformers_loads(folder: Build, tmp_path: Path) -> None:
    path = copied(folder("bos"), tmp_path / "single")
    before = fingerprint_of(path)
    shutil.copy(path / "model.safetensors", path / "other.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "other.safetensors"}}))
    weights = load_file(path / "model.safetensors")
    weights["score.weight"] += 1
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint_of(path) != before


def test_a_fingerprint_names_what_decides_the_numbers(folder: Build, tmp_path: Path) -> None:
    path = folder("bos")

    def value(where: Path = path, max_tokens: int = 100, **options: Any) -> str:
        config = ClassifierConfig(name=options.pop("name", "m"), source=str(where), **options)
        return fingerprint(where, config, max_tokens).value

    base = value()
    assert base.startswith("sha256:")
    moved = copied(path, tmp_path / "moved")
    assert value(moved) == value(name="other") == value(temperature=3.0) == value(device="cpu") == base

    changed = {base, value(max_tokens=99), value(dtype="float32"), value(reasoning="strip")}
    changed |= {value(on_too_long="truncate_left"), value(on_unfinished=-1.0)}
    changed |= {value(special_tokens_in_content="error"), value(special_tokens_in_content="parse")}
    template = moved / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    changed.add(value(moved))
    weights = load_file(moved / "model.safetensors")
    weights["score.weight"][0, 0] += 1e-3
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    changed.add(value(moved))
    assert len(changed) == 10
