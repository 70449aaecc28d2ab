"""Rows of a Parquet file, a few at a time; pyarrow is imported here and in `writing_parquet` only."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet

from reward_service.errors import JobStopped
from reward_service.jobs.inputs import InputFile
from reward_service.jobs.reading import Cursor, RawRow

ROWS_AT_ONCE = 256
BUFFER_BYTES = 1024 * 1024


def parquet_rows(file: InputFile, start: Cursor, columns: Sequence[str]) -> Iterator[RawRow]:
    """The rows of a file from `start` on, of the named columns as far as it has them."""
    line = start.line
    try:
        with file.open() as source:
            table = pyarrow.parquet.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
            wanted = [name for name in dict.fromkeys(columns) if name in table.schema_arrow.names]
            groups, skipped = _groups_from(table.metadata, start.line)
            if not groups:
                return
            for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=wanted):
                left = batch.slice(skipped)
                skipped = max(0, skipped - len(batch))
                size = left.nbytes // max(1, len(left))
                for value in _values(left, f"{file.url} cannot be read after row {line}"):
                    line += 1
                    consumed = file.size * line // table.metadata.num_rows
                    yield RawRow(Cursor(start.file, line), value, size, consumed)
    except (OSError, pyarrow.ArrowException) as error:
        raise JobStopped(f"{file.url} cannot be read after row {line}: {error}") from error


def _values(batch: pyarrow.RecordBatch, told: str) -> list[dict[str, Any]]:
    """The rows of a batch; JobStopped names a column with a value that Python cannot hold."""
    columns: dict[str, list[Any]] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            exact = _exact(field.type)
            columns[field.name] = (column if exact == field.type else column.cast(exact)).to_pylist()
        except (pyarrow.ArrowException, ValueError, OverflowError, LookupError) as error:
            raise JobStopped(f"{told}: column {field.name!r} ({field.type}): {error}") from error
    return [{name: values[place] for name, values in columns.items()} for place in range(len(batch))]


def _exact(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type with nanoseconds, which Python's times do not have, as texts, and durations as their number."""
    types = pyarrow.types
    if (types.is_timestamp(kind) or types.is_time64(kind)) and kind.unit == "ns":
        return pyarrow.string()
    if types.is_duration(kind) and kind.unit == "ns":
        return pyarrow.int64()
    if types.is_struct(kind):
        return pyarrow.struct([_exact_field(field) for field in kind])
    if types.is_map(kind):
        return pyarrow.map_(_exact_field(kind.key_field), _exact_field(kind.item_field))
    if types.is_large_list(kind):
        return pyarrow.large_list(_exact_field(kind.value_field))
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return pyarrow.list_(_exact_field(kind.value_field), kind.list_size if types.is_fixed_size_list(kind) else -1)
    return kind


def _exact_field(field: pyarrow.Field) -> pyarrow.Field:
    return field.with_type(_exact(field.type))


def _groups_from(metadata: pyarrow.parquet.FileMetaData, line: int) -> tuple[list[int], int]:
    """The row groups that are not wholly before a row, and how many rows of the first one are."""
    before = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if before + rows > line:
            return list(range(group, metadata.num_row_groups)), line - before
        before += rows
    return [], 0
