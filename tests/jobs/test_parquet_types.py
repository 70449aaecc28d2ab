"""Values of Parquet that Python's own types cannot hold, and values of JSON that Parquet's cannot."""

from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet
import pytest

from reward_service.errors import JobStopped
from reward_service.jobs import JobPlan
from reward_service.jobs.summary import ROWS_AT_ONCE
from tests.conftest import Start
from tests.jobs.files import ONE_TERM, read, row, score, write

NANOSECONDS = 1_700_000_000_000_000_001
TIME = "2023-11-14 22:13:20.000000001"
NS = arrow.timestamp("ns")


def parquet(folder: Path, values: Any) -> str:
    table = arrow.Table.from_pylist([row(i, id=f"r{i}") for i in range(len(values))]).append_column("extra", values)
    pyarrow.parquet.write_table(table, folder / "in.parquet")
    return str(folder / "in.parquet")


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        (NS, NANOSECONDS, TIME),
        (arrow.timestamp("ns", "UTC"), NANOSECONDS, f"{TIME}Z"),
        (arrow.time64("ns"), 1001, "00:00:00.000001001"),
        (arrow.duration("ns"), 1001, 1001),
        (arrow.struct([("at", NS), ("all", arrow.list_(NS))]), {"at": NANOSECONDS, "all": [1]}, None),
        (arrow.map_(arrow.string(), NS), [("at", NANOSECONDS)], [["at", TIME]]),
        (arrow.large_list(NS), [NANOSECONDS], [TIME]),
        (arrow.list_(NS, 1), [NANOSECONDS], [TIME]),
    ],
)
async def test_nanoseconds_of_a_kept_column_are_kept(
    kind: Any, value: Any, kept: Any, start: Start, tmp_path: Path
) -> None:
    source = parquet(tmp_path, arrow.array([value, None], kind))
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([source], tmp_path / "out.jsonl", keep=["extra"]))
    expected = kept if kept is not None else {"at": TIME, "all": ["1970-01-01 00:00:00.000000001"]}
    assert [one["extra"] for one in read(tmp_path / "out.jsonl")] == [expected, None]


async def test_a_value_that_python_cannot_hold_stops_the_job_with_its_column(start: Start, tmp_path: Path) -> None:
    source = parquet(tmp_path, arrow.array([2**62], arrow.timestamp("us")))
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match=r"in\.parquet .* after row 0: column 'extra' \(timestamp\[us\]\): "):
            await score(running.service, JobPlan([source], tmp_path / "out.jsonl", keep=["extra"]))


@pytest.mark.parametrize("early", [2**53 + 1, [2**53 + 1], {"n": 2**53 + 1}])
async def test_a_large_integer_long_before_a_fraction_makes_the_column_json(
    early: Any, start: Start, tmp_path: Path
) -> None:
    late: Any = {int: 1.5, list: [1.5], dict: {"n": 1.5}}[type(early)]
    values = [early, *[None] * ROWS_AT_ONCE, late]
    source = write(tmp_path / "in.jsonl", [row(i, extra=value) for i, value in enumerate(values)])
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], tmp_path / "out.parquet", keep=["extra"]))
    column = pyarrow.parquet.read_table(tmp_path / "out.parquet").column("extra")
    assert column.type == arrow.string()
    assert "9007199254740993" in column[0].as_py()
    assert "1.5" in column[-1].as_py()


@pytest.mark.parametrize(("value", "kept"), [({}, "{}"), ([{}], "[{}]"), ({"a": {}}, '{"a": {}}')])
async def test_an_object_without_fields_is_json(value: Any, kept: str, start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [row(1.0, extra=value)])
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], tmp_path / "out.parquet", keep=["extra"]))
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("extra").to_pylist() == [kept]
