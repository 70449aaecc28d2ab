"""The output as Parquet: a struct for each term, and the kept columns in the types that their values have."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet

from reward_service.errors import printable
from reward_service.jobs.files import writing
from reward_service.jobs.records import REFERENCE
from reward_service.jobs.summary import record_batches

TEXTS = ("policy", "method")
WHOLE = ("revision", "count")
UNFIT = (arrow.ArrowException, ValueError, TypeError, OverflowError)
ERROR = arrow.struct([("code", arrow.string()), ("detail", arrow.string())])


def write_parquet(rows: Path, file: Path, terms: Sequence[str], keep: Sequence[str]) -> None:
    """Turn the lines of an output into a Parquet file, in their order; it is durable on return."""
    kept = _kept_types(rows, keep)
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("reward", arrow.float64()),
            *((name, kind or arrow.string()) for name, kind in kept.items()),
            ("terms", arrow.struct([(name, _term()) for name in terms])),
        ]
    )
    with writing(file), pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for records in record_batches(rows):
            plain = [_with_texts(record, kept) for record in records]
            writer.write_table(arrow.Table.from_pylist(plain, schema))
    with writing(file), file.open("rb") as written:
        os.fsync(written.fileno())


def _term() -> arrow.DataType:
    return arrow.struct(
        [
            ("raw", arrow.float64()),
            ("raw_source", arrow.string()),
            ("std", arrow.float64()),
            ("baseline", arrow.float64()),
            ("baseline_source", arrow.string()),
            ("transformed", arrow.float64()),
            ("reference", arrow.struct([(name, _reference(name)) for name in REFERENCE])),
            ("error", ERROR),
        ]
    )


def _reference(name: str) -> arrow.DataType:
    return arrow.string() if name in TEXTS else arrow.int64() if name in WHOLE else arrow.float64()


def _kept_types(rows: Path, keep: Sequence[str]) -> dict[str, arrow.DataType | None]:
    """The type of each kept column; None for one whose values have no type in common: it is written as JSON texts."""
    found: dict[str, arrow.DataType | None] = dict.fromkeys(keep, arrow.null())
    widened: set[str] = set()
    for records in record_batches(rows) if keep else ():
        for name, kind in found.items():
            found[name] = None if kind is None else _joined(kind, [record[name] for record in records])
            if kind not in (found[name], arrow.null()):
                widened.add(name)
    for records in record_batches(rows) if widened else ():  # what came before its column was widened may not fit
        for name in widened:
            if not _fits([record[name] for record in records], found[name]):
                found[name] = None
    return {name: arrow.string() if kind == arrow.null() else kind for name, kind in found.items()}


def _joined(kind: arrow.DataType, values: Sequence[Any]) -> arrow.DataType | None:
    try:
        both = [arrow.schema([("values", one)]) for one in (kind, arrow.array(values).type)]
        joined = arrow.unify_schemas(both, promote_options="permissive").field("values").type
    except UNFIT:
        return None
    return joined if _fits(values, joined) else None


def _fits(values: Sequence[Any], kind: arrow.DataType | None) -> bool:
    """Whether a Parquet column of that type holds the values as they are."""
    if kind is None or _without_fields(kind):
        return False
    try:
        arrow.array(values, kind)
    except UNFIT:
        return False
    return True


def _without_fields(kind: arrow.DataType) -> bool:
    """Whether there is a struct without fields in it, which Parquet does not know."""
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return (arrow.types.is_struct(kind) and not inner) or any(_without_fields(one) for one in inner)


def _with_texts(record: Mapping[str, Any], kept: Mapping[str, arrow.DataType | None]) -> dict[str, Any]:
    texts = {
        name: printable(json.dumps(record[name], ensure_ascii=False))
        for name, kind in kept.items()
        if kind is None and record[name] is not None
    }
    return {**record, "id": printable(record["id"]), **texts}
