"""Human preference pairs: read from HH dialogues, split by prompt so that no prompt stands on both sides.

The files are those of Bai et al. (arXiv:2204.05862): `prompt`, `chosen` and `rejected` are dialogues whose turns open
with "\\n\\nHuman:" or "\\n\\nAssistant:"; both dialogues begin with the prompt.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = dict[str, str]

TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
RESPONSE_OPENS = "\n\nAssistant:"


class InvalidPair(ValueError):
    """A row that is not a preference pair; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, of which a person preferred `chosen`."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def first_turn(self) -> str:
        """The first message of the prompt: what the split and the folds group by."""
        return self.prompt[0]["content"]

    def conversation(self, response: str) -> list[Message]:
        """The prompt with `response` as its last turn."""
        return [*self.prompt, {"role": "assistant", "content": response}]


def parse_dialogue(text: str) -> list[Message]:
    """Turns of an HH dialogue as role messages; turns of one speaker in a row stay apart, as they were written."""
    preamble, *turns = TURN.split(text)
    if preamble.strip() or not turns:
        raise InvalidPair('a dialogue must begin with "\\n\\nHuman:" or "\\n\\nAssistant:"')
    speakers, contents = turns[::2], turns[1::2]
    return [
        {"role": ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(speakers, contents, strict=True)
    ]


def parse_pair(row: Any) -> Pair:
    """One row of an HH file. The response is all that follows the prompt, turn markers in it included."""
    prompt, chosen, rejected = (_text(row, field) for field in ("prompt", "chosen", "rejected"))
    if not prompt.endswith(RESPONSE_OPENS):
        raise InvalidPair(f"the prompt must end with {RESPONSE_OPENS!r}")
    messages = parse_dialogue(prompt.removesuffix(RESPONSE_OPENS))
    if messages[0]["role"] != "user":
        raise InvalidPair("the first turn must be the human's")
    return Pair(tuple(messages), _response(chosen, prompt, "chosen"), _response(rejected, prompt, "rejected"))


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a gzipped JSON-lines file; the first bad row raises `InvalidPair` with its line number."""
    return [_numbered(path, number, line) for number, line in enumerate(read_lines(path), start=1)]


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a gzipped text file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from lines


def is_held_out(first_turn: str) -> bool:
    """Whether sha256 of the first human turn, modulo 5, is 0: about one prompt in five."""
    return _digest(first_turn) % 5 == 0


def split(pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(held in, held out); a prompt's pairs all fall on one side, whatever the file they come from."""
    held_in: list[Pair] = []
    held_out: list[Pair] = []
    for pair in pairs:
        (held_out if is_held_out(pair.first_turn) else held_in).append(pair)
    return held_in, held_out


def folds(pairs: Sequence[Pair], count: int) -> list[list[int]]:
    """Indices of `pairs` in `count` folds, grouped by first human turn and independent of the held-out split."""
    parts: list[list[int]] = [[] for _ in range(count)]
    for index, pair in enumerate(pairs):
        parts[_digest("fold:" + pair.first_turn) % count].append(index)
    return parts


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _numbered(path: Path, number: int, line: str) -> Pair:
    try:
        return parse_pair(json.loads(line))
    except ValueError as error:
        raise InvalidPair(f"{path.name}, line {number}: {error}") from error


def _text(row: Any, field: str) -> str:
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise InvalidPair(f"field {field!r} must be a string")
    return value


def _response(dialogue: str, prompt: str, field: str) -> str:
    if not dialogue.startswith(prompt):
        raise InvalidPair(f"field {field!r} must start with the prompt")
    return dialogue.removeprefix(prompt).strip()
