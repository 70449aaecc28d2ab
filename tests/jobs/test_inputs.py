"""Files, patterns and URLs; compressed, columnar and remote."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as arrow
import pyarrow.parquet
import pytest

from reward_service.errors import JobStopped
from reward_service.jobs import JobPlan
from reward_service.jobs.inputs import find_inputs
from reward_service.jobs.reading import LONGEST_ROW_BYTES
from tests.conftest import Start
from tests.jobs.files import ONE_TERM, errors, read, row, score, write

ROWS = 600


@pytest.fixture
def memory() -> Iterator[Any]:
    """The `memory://` file system, empty before and after."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def text(count: int) -> bytes:
    return "".join(f"{json.dumps(row(i))}\n" for i in range(count)).encode()


def written(kind: str, folder: Path, memory: Any) -> str:
    """One file of each kind with the same rows."""
    path = folder / f"in.{kind}"
    if kind == "jsonl":
        path.write_bytes(text(ROWS))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(text(ROWS)))
    elif kind == "parquet":
        table = arrow.Table.from_pylist([{**row(i), "id": None, "unused": i} for i in range(ROWS)])
        pyarrow.parquet.write_table(table, path, row_group_size=100)
    else:
        memory.pipe(f"/data/in.{kind.removeprefix('memory ')}", path.with_name("in.jsonl").read_bytes())
        return "memory://data/in.jsonl"
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "memory jsonl"])
async def test_a_job_over_any_kind_of_file_goes_on_where_it_was(
    kind: str, start: Start, tmp_path: Path, memory: Any
) -> None:
    (tmp_path / "in.jsonl").write_bytes(text(ROWS))
    plan = JobPlan([written(kind, tmp_path, memory)], tmp_path / "out.jsonl", batch=50, concurrency=1)
    shares = []
    async with start(ONE_TERM) as running:
        for stop_after in (170, 390, None):
            seen: list[Any] = []
            await score(running.service, plan, stop_after=stop_after, seen=seen)
            shares += [one.share for one in seen]
    rows = read(tmp_path / "out.jsonl")
    assert [one["reward"] for one in rows] == list(range(ROWS))
    name = "in.parquet" if kind == "parquet" else f"in.{kind.split()[-1]}"
    assert [one["id"] for one in rows] == [f"{name}:{i + 1}" for i in range(ROWS)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


async def test_parquet_rows_may_hold_messages(start: Start, tmp_path: Path) -> None:
    message = arrow.struct([("role", arrow.string()), ("content", arrow.string()), ("name", arrow.string())])
    messages = [{"role": "user", "content": "hi", "name": None}, {"role": "assistant", "content": "2.5"}]
    table = arrow.table({"messages": arrow.array([messages], arrow.list_(message))})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(tmp_path / "in.parquet")], tmp_path / "out.jsonl"))
    assert [one["reward"] for one in read(tmp_path / "out.jsonl")] == [2.5]


def test_a_pattern_stands_for_its_files_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a/10.jsonl", "a/9.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, [row(1)])
    found = find_inputs([str(tmp_path / "**/*.jsonl")])
    assert [file.name for file in found] == ["a/10.jsonl", "a/9.jsonl", "b/2.jsonl"]
    assert [file.name for file in find_inputs([str(tmp_path / "a" / "9.jsonl")])] == ["9.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern_is_meant_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "step[10].jsonl", [row(1)])
    write(tmp_path / "step1.jsonl", [row(1)])
    assert [file.name for file in find_inputs([str(tmp_path / "step[10].jsonl")])] == ["step[10].jsonl"]


def test_remote_patterns_stand_for_their_files(memory: Any) -> None:
    for name in ("2", "1"):
        memory.pipe(f"/data/{name}.jsonl", text(1))
    found = find_inputs(["memory://data/*.jsonl"])
    assert [(file.url, file.name) for file in found] == [
        ("memory:///data/1.jsonl", "1.jsonl"),
        ("memory:///data/2.jsonl", "2.jsonl"),
    ]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (["none*.jsonl"], "none*.jsonl: no file"),
        (["."], "a folder; name its files, such as ./*.jsonl"),
        (["in.csv"], "in.csv: the name ends in none of .jsonl, .jsonl.gz, .parquet"),
        (["in.jsonl", "*.jsonl"], "in.jsonl is named 2 times"),
        (["memory://nothing.jsonl"], "memory://nothing.jsonl: no file"),
        (["nosuch://bucket/in.jsonl"], "nosuch://bucket/in.jsonl cannot be read: Protocol not known: nosuch"),
    ],
)
def test_inputs_that_are_not_there_are_told(
    inputs: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", [row(1)])
    (tmp_path / "in.csv").write_text("prompt,response")
    with pytest.raises(JobStopped) as refusal:
        find_inputs(inputs)
    assert told in str(refusal.value)


def test_a_remote_file_of_unknown_size_is_refused(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/data/in.jsonl", text(1))
    known = memory.info
    monkeypatch.setattr(memory, "info", lambda path: {**known(path), "size": None})  # as HTTP without Content-Length
    with pytest.raises(JobStopped, match=r"memory:///data/in\.jsonl: its server does not tell its size"):
        find_inputs(["memory://data/in.jsonl"])


@pytest.mark.parametrize("cut", [0.5, 0.99])
async def test_a_compressed_file_that_was_cut_off_stops_the_job_with_its_line(
    cut: float, start: Start, tmp_path: Path
) -> None:
    whole = gzip.compress(text(5000))
    (tmp_path / "in.jsonl.gz").write_bytes(whole[: int(cut * len(whole))])
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match=r"in\.jsonl\.gz cannot be read after line \d{4}: "):
            await score(running.service, JobPlan([str(tmp_path / "in.jsonl.gz")], tmp_path / "out.jsonl"))
    assert len(read(tmp_path / "out.jsonl.job" / "rows.jsonl")) > 1000


async def test_what_is_no_parquet_file_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1 not really")
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match=r"in\.parquet cannot be read after row 0"):
            await score(running.service, JobPlan([str(tmp_path / "in.parquet")], tmp_path / "out.jsonl"))


async def test_a_row_that_is_too_long_is_passed_over(start: Start, tmp_path: Path) -> None:
    long = json.dumps(row(2, metadata={"text": "x" * LONGEST_ROW_BYTES}))
    source = write(tmp_path / "in.jsonl", [row(1), long, row(3)])
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], tmp_path / "out.jsonl"))
    assert [one["id"] for one in read(tmp_path / "out.jsonl")] == ["in.jsonl:1", "in.jsonl:3"]
    assert [(one["line"], one["code"]) for one in errors(tmp_path / "out.jsonl")] == [(2, "row_too_long")]


async def test_text_that_is_not_utf_8_is_an_error_row_and_a_byte_order_mark_is_none(
    start: Start, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + json.dumps(row(1)).encode() + b'\r\n{"prompt": "\xff"}\r\n')
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], tmp_path / "out.jsonl"))
    assert [one["reward"] for one in read(tmp_path / "out.jsonl")] == [1.0]
    assert [(one["line"], one["code"]) for one in errors(tmp_path / "out.jsonl")] == [(2, "malformed_row")]
