"""Rows of files one after the other, from any place on, in flat memory."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from reward_service.errors import JobStopped
from reward_service.jobs.inputs import InputFile
from reward_service.problems import shown

LONGEST_ROW_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two rows: `line` lines (of Parquet, rows) of file number `file` lie before it.

    `offset` counts bytes of a JSONL file, of the text if it is compressed; it is 0 in Parquet.
    """

    file: int = 0
    line: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row has no reward."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it stands in its file, which ends at `end`; `consumed` bytes of the file are read by then."""

    end: Cursor
    value: dict[str, Any] | Problem
    size: int
    consumed: int


def raw_rows(inputs: Sequence[InputFile], start: Cursor, columns: Sequence[str]) -> Iterator[RawRow]:
    """The rows of all files in order, from `start` on; of Parquet only the named columns are read."""
    for index in range(start.file, len(inputs)):
        file, begin = inputs[index], start if index == start.file else Cursor(index)
        if file.format == "parquet":
            from reward_service.jobs.reading_parquet import parquet_rows  # late: no other file needs pyarrow

            yield from parquet_rows(file, begin, columns)
        else:
            yield from _json_lines(file, begin)


def _json_lines(file: InputFile, start: Cursor) -> Iterator[RawRow]:
    at = start
    try:
        with file.open() as source, _unpacked(file, source) as lines:
            lines.seek(start.offset)  # what is compressed is read up to there
            while text := lines.readline(LONGEST_ROW_BYTES):
                size = len(text) + _rest_of_line(lines, text)
                at = Cursor(at.file, at.line + 1, at.offset + size)
                if not text.isspace():
                    yield RawRow(at, _parsed(text, size, at.line), len(text), source.tell())
    except (OSError, EOFError, zlib.error) as error:
        raise JobStopped(f"{file.url} cannot be read after line {at.line}: {error}") from error


def _unpacked(file: InputFile, source: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=source) if file.format == "jsonl.gz" else source  # type: ignore[return-value]


def _rest_of_line(lines: IO[bytes], text: bytes) -> int:
    """Passes over what is left of a line that is too long to be read whole; its bytes."""
    passed = 0
    while len(text) == LONGEST_ROW_BYTES and not text.endswith(b"\n"):
        text = lines.readline(LONGEST_ROW_BYTES)
        passed += len(text)
    return passed


def _parsed(text: bytes, size: int, line: int) -> dict[str, Any] | Problem:
    if size > len(text):
        return Problem("row_too_long", f"the row has {size:,} bytes; at most {LONGEST_ROW_BYTES:,}")
    try:
        value = json.loads(text.decode("utf-8-sig" if line == 1 else "utf-8"), parse_constant=_not_json)
    except RecursionError:
        return Problem("malformed_row", "nested too deeply")
    except ValueError as error:
        return Problem("malformed_row", f"not valid JSON: {error}")
    return value if isinstance(value, dict) else Problem("malformed_row", f"{shown(value)} is not a JSON object")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
