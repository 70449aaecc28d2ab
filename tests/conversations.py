"""Real conversations to test with, read from a data folder beside the checkout."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
ROLES = {"Human": "user", "Assistant": "assistant"}


def real_conversations(count: int) -> list[list[dict[str, Any]]]:
    """So many dialogues as messages, half helpful and half harmless; skips the test where the data is absent."""
    files = [DATA / f"{name}-base-test.jsonl.gz" for name in ("helpful", "harmless")]
    if not all(file.is_file() for file in files):
        pytest.skip("the HH-RLHF test files are not here: no real conversations to compare on")
    return [messages for file in files for messages in _read(file, count // 2)]


def _read(file: Path, count: int) -> list[list[dict[str, Any]]]:
    conversations: list[list[dict[str, Any]]] = []
    with gzip.open(file, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            conversations += [parse(row["chosen"]), parse(row["rejected"])]
            if len(conversations) >= count:
                break
    return conversations[:count]


def parse(dialogue: str) -> list[dict[str, Any]]:
    """The messages of an HH-RLHF dialogue."""
    turns = re.split(r"\n\n(Human|Assistant):", dialogue)[1:]
    return [{"role": ROLES[who], "content": said.strip()} for who, said in zip(turns[::2], turns[1::2], strict=True)]


def real_groups(prompts: int) -> list[list[list[dict[str, Any]]]]:
    """So many prompts with 16 responses of one policy each; skips the test where the data is absent."""
    file = DATA / "rewardbench-bon16-tulu2dpo13b-alpacaeval.jsonl.gz"
    if not file.is_file():
        pytest.skip("the RewardBench best-of-16 file is not here: no real groups of responses to compare on")
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(prompts), strict=False)]
    return [[_turn(row["instruction"], response) for response in row["responses"]] for row in rows]


def _turn(prompt: str, response: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
