"""Parquet output, summary and report."""

import datetime
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet
import pytest

from reward_service.jobs import JobPlan
from tests.conftest import Start
from tests.jobs.files import ONE_TERM, read, row, score, write

VOID = {"meta", "rect", "line", "link", "img", "br"}


async def test_parquet_holds_what_jsonl_holds(start: Start, tmp_path: Path) -> None:
    rows = [row(i / 7, id=f"r{i}", source="a" if i % 2 else None, count=i) for i in range(50)]
    source = str(write(tmp_path / "in.jsonl", rows))
    async with start(ONE_TERM) as running:
        for name in ("out.jsonl", "out.parquet"):
            await score(running.service, JobPlan([source], tmp_path / name, keep=["source", "count"]))
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == read(tmp_path / "out.jsonl")
    assert table.schema.field("count").type == arrow.int64()
    assert table.schema.field("terms").type.field("helpful").type.field("raw").type == arrow.float64()
    assert not (tmp_path / "out.parquet.job").exists()


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([1, 2.5, None], arrow.float64(), [1.0, 2.5, None]),
        ([1, "a", None], arrow.string(), ["1", '"a"', None]),
        ([[1], [], None], arrow.list_(arrow.int64()), [[1], [], None]),
        ([None, None, None], arrow.string(), [None, None, None]),
        ([2**70, 1, None], arrow.string(), [str(2**70), "1", None]),
    ],
)
async def test_kept_columns_of_parquet_have_the_type_of_their_values_or_are_json(
    values: list[Any], kind: Any, kept: list[Any], start: Start, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [row(i, extra=value) for i, value in enumerate(values)])
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], tmp_path / "out.parquet", keep=["extra"]))
    column = pyarrow.parquet.read_table(tmp_path / "out.parquet").column("extra")
    assert (column.type, column.to_pylist()) == (kind, kept)


async def test_kept_columns_that_json_cannot_hold_are_written_all_the_same(start: Start, tmp_path: Path) -> None:
    extra = {"when": datetime.date(2026, 5, 1), "number": float("nan"), "numbers": [1.0, float("inf")]}
    pyarrow.parquet.write_table(arrow.Table.from_pylist([{**row(1), **extra}]), tmp_path / "in.parquet")
    async with start(ONE_TERM) as running:
        plan = JobPlan([str(tmp_path / "in.parquet")], tmp_path / "out.jsonl", keep=list(extra))
        await score(running.service, plan)
    kept = {name: read(tmp_path / "out.jsonl")[0][name] for name in extra}
    assert kept == {"when": "2026-05-01", "number": None, "numbers": [1.0, None]}


async def test_the_summary_counts_everything_and_tells_the_distributions(start: Start, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(2.0, 3.0, 3000)
    rows = [row(float(number)) for number in numbers]
    source = write(tmp_path / "in.jsonl", [*rows, "not JSON"])
    toml = ONE_TERM.replace('"identity"', '"log_sigmoid_centered"\nbaseline = 1.0')
    async with start(toml) as running:
        summary = await score(running.service, JobPlan([str(source)], tmp_path / "out.jsonl"))
    assert summary is not None
    assert summary == json.loads((tmp_path / "out.jsonl.summary.json").read_text())
    assert (summary["rows"], summary["scored"], summary["failed"], summary["tokens"]) == (3001, 3000, 1, 30_000)
    raw, transformed = summary["terms"]["helpful"]["raw"], summary["terms"]["helpful"]["transformed"]
    assert raw["mean"] == pytest.approx(numbers.mean(), rel=1e-9)
    assert raw["std"] == pytest.approx(numbers.std(ddof=1), rel=1e-9)
    assert raw["p95"] == pytest.approx(np.quantile(numbers, 0.95, method="hazen"), rel=1e-9)
    assert transformed["p50"] == pytest.approx(np.median(-np.logaddexp(0, 1.0 - numbers)), rel=1e-9)
    assert summary["terms"]["helpful"]["baseline_sources"] == {"constant": 3000}
    assert sum(summary["reward"]["histogram"]["counts"]) == pytest.approx(0.998 * 3000, abs=3)


class Page(HTMLParser):
    """What is in a page; fails when an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


async def test_the_report_is_one_page_that_loads_nothing_and_names_its_plots(start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "<in>.jsonl", [row(i) for i in range(100)] + ["not JSON"])
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], tmp_path / "out.jsonl"))
    text = (tmp_path / "out.jsonl.report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", text)
    assert "prefers-color-scheme: dark" in text
    plots = [value.split() for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-labelledby")]
    assert len(plots) == 3
    assert {label for labels in plots for label in labels} <= page.ids
    told = " ".join(" ".join(page.text).split())
    for part in ("out.jsonl", "malformed_row", "<in>.jsonl", "sha256:", "helpful: transformed", "49.5"):
        assert part in told, part


@pytest.mark.parametrize("rows", [[], ["not JSON"], [row(1.0)], [row(2.0), row(2.0)]])
async def test_a_report_of_few_numbers_is_whole(rows: list[Any], start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows)
    async with start(ONE_TERM) as running:
        for name in ("out.jsonl", "out.parquet"):
            summary = await score(running.service, JobPlan([str(source)], tmp_path / name))
            Page((tmp_path / f"{name}.report.html").read_text())
    assert summary is not None
    assert summary["rows"] == len(rows)
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").num_rows == summary["scored"]
