"""Reading a JSONL file of prompts and their reference responses or rewards."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from reward_service.baselines import prompt_key
from reward_service.errors import ConfigError
from reward_service.problems import sentences, shown
from reward_service.schemas import Prompt

MOST_PROBLEMS = 20


class Row(BaseModel):
    """One line; columns of other names are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: Annotated[Prompt, Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    responses: list[str] | None = None
    response: str | None = None
    rewards: list[FiniteFloat] | None = None


@dataclass(slots=True)
class PromptRow:
    """A prompt with all references that the file gives for it, at the line where it stood first."""

    line: int
    prompt: Any
    tools: Any
    responses: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.responses) + len(self.rewards)

    @property
    def shown(self) -> str:
        """The prompt, short enough to print."""
        return shown(self.prompt)

    def entry(self, source: str) -> dict[str, Any]:
        """The prompt as PUT /v1/baselines takes it; draws are named by their `source` and place in it."""
        given = {"responses": self.responses} if self.responses else {"rewards": self.rewards}
        draw_ids = [f"{source}:{place}" for place in range(len(self))]
        return {"prompt": self.prompt, **({"tools": self.tools} if self.tools else {}), "draw_ids": draw_ids, **given}


def read_prompts(file: Path, *, needs_references: bool) -> list[PromptRow]:
    """The prompts of a file (`.jsonl` or `.jsonl.gz`), each once; ConfigError names every bad line."""
    problems: list[str] = []
    rows: dict[str, PromptRow] = {}
    for line, text in _lines(file):
        row = _parsed(line, text, problems)
        if row is not None:
            _add(rows, line, row, needs_references, problems)
    if not rows and not problems:
        problems.append("no rows")
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise ConfigError(str(file), [*problems[:MOST_PROBLEMS], *more])
    return list(rows.values())


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        yield from ((number, text) for number, text in enumerate(data.decode().split("\n"), 1) if text.strip())
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ConfigError(str(file), [f"cannot be read: {error}"]) from error


def _parsed(line: int, text: str, problems: list[str]) -> Row | None:
    try:
        return Row.model_validate_json(text)
    except ValidationError as error:
        problems += sentences(error.errors(), Row, f"line {line}")
        return None


def _add(rows: dict[str, PromptRow], line: int, row: Row, needs_references: bool, problems: list[str]) -> None:
    responses = [*(row.responses or ()), *([] if row.response is None else [row.response])]
    if needs_references and bool(responses) == bool(row.rewards):
        problems.append(f"line {line}: give `responses` (or `response`), or `rewards`")
        return
    prompt = row.prompt if isinstance(row.prompt, str) else _plain(row.prompt)
    key = prompt_key(prompt, row.tools)
    known = rows.setdefault(key, PromptRow(line, prompt, row.tools))
    known.responses += responses
    known.rewards += row.rewards or ()
    if known.responses and known.rewards:
        problems.append(f"line {line}: this prompt has responses in one line and rewards in another; give one kind")


def _plain(messages: Sequence[BaseModel]) -> list[dict[str, Any]]:
    return [message.model_dump(exclude_none=True) for message in messages]
