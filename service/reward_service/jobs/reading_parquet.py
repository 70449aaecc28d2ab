"""Rows of a Parquet file, a few at a time; pyarrow is imported here and in `writing_parquet` only."""

from collections.abc import Iterator, Sequence

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
                for value in left.to_pylist():
                    line += 1
                    consumed = file.size * line // table.metadata.num_rows
                    yield RawRow(Cursor(start.file, line), value, size, consumed)
    except (OSError, pyarrow.ArrowException) as error:
        raise JobStopped(f"{file.url} cannot be read after row {line}: {error}") from error


def _groups_from(metadata: pyarrow.parquet.FileMetaData, line: int) -> tuple[list[int], int]:
    """The row groups that are not wholly before a row, and how many rows of the first one are."""
    before = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if before + rows > line:
            return list(range(group, metadata.num_row_groups)), line - before
        before += rows
    return [], 0
