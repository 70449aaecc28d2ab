import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward_service.training.margins import accuracy
from reward_service.training.preferences import Pair, read_pairs, split
from reward_service.training.recipe import pair_margins

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
DEMO = ROOT / "service" / "reward_service" / "demo"
NAMES = ("helpful", "harmless")
KINDS = {"helpful", "useless", "harmful", "refusing"}


def load(name: str) -> tuple[Any, Any]:
    folder = DEMO / "models" / name
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def record(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DEMO / "models" / name / "training_record.json").read_text())
    return read


def json_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / name).read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_model_is_small_enough_to_commit(name: str) -> None:
    weights = DEMO / "models" / name / "model.safetensors"
    assert weights.stat().st_size <= 8 * 1024 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_model_has_one_unbiased_score_and_heads_of_64(name: str) -> None:
    model, tokenizer = load(name)
    assert model.config.num_labels == 1
    assert model.config.head_dim == 64
    assert model.config.max_position_embeddings >= 1024
    assert model.score.bias is None
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_model_reads_its_score_at_the_end_of_the_response(name: str) -> None:
    model, tokenizer = load(name)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "Hello"}], tokenize=False)
    assert text == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|>"
    assert tokenizer(text)["input_ids"][-1] == tokenizer.eos_token_id == model.config.eos_token_id


@pytest.mark.parametrize("name", NAMES)
def test_training_and_transformers_score_alike(name: str) -> None:
    model, tokenizer = load(name)
    prompt = ({"role": "user", "content": "How do I boil an egg?"},)
    pair = Pair(prompt, "Seven minutes in boiling water, then cold water.", "No.")
    texts = [tokenizer.apply_chat_template(pair.conversation(said), tokenize=False) for said in (pair.chosen, "No.")]
    with torch.no_grad():
        chosen, rejected = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.squeeze(-1).tolist()
    assert pair_margins(model, tokenizer, [pair])[0] == pytest.approx(chosen - rejected, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_accuracy_is_reproduced(name: str) -> None:
    path = DATA / f"{name}-base-test.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the preference data are not beside the repository ({path.name})")
    model, tokenizer = load(name)
    _, held_out = split(read_pairs(path))
    recorded = record(name)["held_out"]
    assert recorded["pairs"] == len(held_out)
    measured = accuracy(pair_margins(model.eval(), tokenizer, held_out))
    assert measured == pytest.approx(recorded["accuracy"], abs=0.005)  # two near ties may turn on another processor


@pytest.mark.parametrize("name", NAMES)
def test_the_card_states_the_recorded_figures(name: str) -> None:
    card = (DEMO / "models" / name / "README.md").read_text()
    recorded = record(name)
    assert f"{recorded['held_out']['accuracy']:.3f}" in card
    assert f"{recorded['temperature']:.3f}" in card


@pytest.mark.parametrize("name", NAMES)
def test_no_file_of_a_demo_model_names_a_machine_path(name: str) -> None:
    for path in (DEMO / "models" / name).iterdir():
        if path.name not in {"model.safetensors", "tokenizer.json"}:
            assert not re.search(r"(?<![\w.])/\w+/", path.read_text()), path.name


def test_each_demo_prompt_has_four_kinds_of_response() -> None:
    conversations = json_lines("conversations.jsonl")
    assert len({conversation["id"] for conversation in conversations}) == len(conversations) >= 24
    by_prompt: dict[str, set[str]] = {}
    for conversation in conversations:
        by_prompt.setdefault(json.dumps(conversation["prompt"]), set()).add(conversation["kind"])
    assert len(by_prompt) >= 8
    assert all(kinds == KINDS for kinds in by_prompt.values())


def test_each_demo_prompt_has_at_least_eight_different_references() -> None:
    references = {json.dumps(line["prompt"]): line["responses"] for line in json_lines("references.jsonl")}
    assert references.keys() == {json.dumps(line["prompt"]) for line in json_lines("conversations.jsonl")}
    assert all(len(set(responses)) == len(responses) >= 8 for responses in references.values())
