import gzip
import json
from pathlib import Path

import pytest

from reward_service.training.preferences import (
    InvalidPair,
    Pair,
    folds,
    is_held_out,
    parse_dialogue,
    parse_pair,
    read_pairs,
    split,
)

PROMPT = "\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: Which bird is that?\n\nAssistant:"


def row(**changes: object) -> dict[str, object]:
    return {"prompt": PROMPT, "chosen": PROMPT + " A robin.", "rejected": PROMPT + " No idea.", **changes}


def pair(first_turn: str, response: str = "Yes.") -> Pair:
    return Pair(({"role": "user", "content": first_turn},), response, "No.")


def write(path: Path, *lines: str) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def test_a_dialogue_becomes_role_messages() -> None:
    assert parse_dialogue("\n\nHuman: Hello \n\nAssistant: Hi!") == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
    ]


def test_turns_of_one_speaker_in_a_row_stay_apart() -> None:
    roles = [message["role"] for message in parse_dialogue("\n\nHuman: a\n\nHuman: b\n\nAssistant: c")]
    assert roles == ["user", "user", "assistant"]


def test_a_pair_shares_its_prompt() -> None:
    parsed = parse_pair(row())
    assert [message["content"] for message in parsed.prompt] == ["Hello", "Hi!", "Which bird is that?"]
    assert (parsed.chosen, parsed.rejected) == ("A robin.", "No idea.")
    assert parsed.conversation("Hm.")[-1] == {"role": "assistant", "content": "Hm."}


def test_a_response_keeps_turn_markers_that_follow_the_prompt() -> None:
    assert parse_pair(row(chosen=PROMPT + " Wait.\n\nAssistant: A robin.")).chosen == "Wait.\n\nAssistant: A robin."


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (row(prompt=7), "field 'prompt' must be a string"),
        ({"prompt": PROMPT, "chosen": PROMPT}, "field 'rejected' must be a string"),
        (["not", "a", "row"], "field 'prompt' must be a string"),
        (row(prompt="\n\nHuman: Hello"), "the prompt must end with"),
        (row(chosen="\n\nHuman: Other\n\nAssistant: A robin."), "field 'chosen' must start with the prompt"),
        (row(prompt="Hello\n\nAssistant:"), "a dialogue must begin with"),
        (row(prompt="\n\nAssistant: Hi\n\nAssistant:"), "the first turn must be the human's"),
    ],
)
def test_a_bad_row_is_a_clear_error(bad: object, sentence: str) -> None:
    with pytest.raises(InvalidPair, match=sentence):
        parse_pair(bad)


@pytest.mark.parametrize("line", ["{", '{"prompt": null}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "pairs.jsonl.gz", json.dumps(row()), line)
    with pytest.raises(InvalidPair, match=r"pairs\.jsonl\.gz, line 2: "):
        read_pairs(path)


def test_pairs_are_read_in_order(tmp_path: Path) -> None:
    rows = [row(chosen=PROMPT + f" Bird {number}.") for number in range(3)]
    path = write(tmp_path / "pairs.jsonl.gz", *map(json.dumps, rows))
    assert [read.chosen for read in read_pairs(path)] == ["Bird 0.", "Bird 1.", "Bird 2."]


def test_the_split_is_pinned() -> None:
    assert [number for number in range(20) if is_held_out(f"prompt {number}")] == [9, 10, 12, 14]


def test_no_prompt_stands_on_both_sides() -> None:
    pairs = [pair(f"prompt {number % 100}", f"answer {number}") for number in range(300)]
    held_in, held_out = split(pairs)
    assert len(held_in) + len(held_out) == 300
    assert not {read.first_turn for read in held_in} & {read.first_turn for read in held_out}
    assert 0.1 < len(held_out) / 300 < 0.3


def test_folds_cover_all_pairs_once_and_keep_prompts_together() -> None:
    pairs = [pair(f"prompt {number % 40}") for number in range(120)]
    parts = folds(pairs, 3)
    assert sorted(index for part in parts for index in part) == list(range(120))
    prompts = [{pairs[index].first_turn for index in part} for part in parts]
    assert not prompts[0] & prompts[1]
    assert not prompts[0] & prompts[2]
    assert not prompts[1] & prompts[2]
