"""From rows of a file to conversations, and from conversations to the requests that score them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reward_service.jobs.inputs import InputFile
from reward_service.jobs.plan import JobPlan
from reward_service.jobs.reading import Cursor, Problem, RawRow, raw_rows
from reward_service.problems import shown

MOST_BYTES = 2 * 1024 * 1024
KEPT_TOGETHER = 4
"""Responses to one prompt stay in one request until it is so many times larger than others."""
MOST_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """A row: a conversation in wire form, or the problem that hinders it; `kept` are columns for the output."""

    file: str
    end: Cursor
    id: str
    conversation: dict[str, Any] | Problem
    kept: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    consumed: int = 0

    @property
    def line(self) -> int:
        """Its line, or its row in Parquet; the first is 1."""
        return self.end.line

    @property
    def kin(self) -> object:
        """What it shares with the rows that are best scored together with it: its group, or its prompt."""
        if isinstance(self.conversation, Problem):
            return None
        group, messages = self.conversation.get("group"), self.conversation.get("messages")
        if group is not None:
            return group
        return messages[:-1] if isinstance(messages, list) else self.conversation.get("prompt")


def rows(plan: JobPlan, inputs: Sequence[InputFile], start: Cursor) -> Iterator[Row]:
    """The rows of the job from `start` on."""
    columns = plan.columns()
    for raw in raw_rows(inputs, start, [*columns.values(), *plan.keep]):
        yield _row(raw, inputs[raw.end.file].name, columns, plan.keep)


def chunks(rows: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Rows in order, about `most` in a chunk; neighbours of one group or one prompt stay together if they can."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        if chunk and _ends(chunk, size, row, most):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row.size
    if chunk:
        yield chunk


def _ends(chunk: Sequence[Row], size: int, following: Row, most: int) -> bool:
    full = max(len(chunk) / most, (size + following.size) / MOST_BYTES)
    if full < 1:
        return False
    alone = following.kin is None or following.kin != chunk[-1].kin
    return alone or full >= KEPT_TOGETHER or len(chunk) >= MOST_ROWS


def _row(raw: RawRow, file: str, columns: Mapping[str, str], keep: Sequence[str]) -> Row:
    derived = f"{file}:{raw.end.line}"
    if isinstance(raw.value, Problem):
        return Row(file, raw.end, derived, raw.value, dict.fromkeys(keep), raw.size, raw.consumed)
    given = {name: value for name, column in columns.items() if (value := raw.value.get(column)) is not None}
    kept = {name: raw.value.get(name) for name in keep}
    identity = given.get("id", derived)
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str):
        problem = Problem("invalid_request", f"id: {shown(identity)} is not valid: expected a text or a whole number")
        return Row(file, raw.end, derived, problem, kept, raw.size, raw.consumed)
    return Row(file, raw.end, identity, {**given, "id": identity}, kept, raw.size, raw.consumed)
