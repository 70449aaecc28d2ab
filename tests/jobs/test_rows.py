"""Which rows become conversations, and what becomes of the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward_service.errors import JobStopped
from reward_service.jobs import JobPlan
from tests.conftest import Start
from tests.jobs.files import ONE_TERM, errors, read, row, score, write
from tests.scripted import ScriptedEngine


async def test_every_row_has_its_reward_or_its_error_once_and_in_order(start: Start, tmp_path: Path) -> None:
    bad = ["{", "[1]", '{"prompt": NaN, "response": "1"}', '{"a":' * 100_000, '{"prompt": "p"}']
    rows: list[Any] = [
        row(0.5, id="a"),
        bad[0],
        row(1.5),
        "",
        *bad[1:],
        row(2.5, id=7),
        row(3.5, id="a"),
        row(4.5, id=[1]),
    ]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    async with start(ONE_TERM) as running:
        summary = await score(running.service, JobPlan([str(source)], output))
    assert [(one["id"], one["reward"]) for one in read(output)] == [("a", 0.5), ("in.jsonl:3", 1.5), ("7", 2.5)]
    assert [(one["line"], one["code"]) for one in errors(output)] == [
        (2, "malformed_row"),
        (5, "malformed_row"),
        (6, "malformed_row"),
        (7, "malformed_row"),
        (8, "invalid_request"),
        (10, "duplicate_id"),
        (11, "invalid_request"),
    ]
    assert all(one["file"] == "in.jsonl" for one in errors(output))
    assert "in.jsonl:1 has the same id 'a'" in errors(output)[5]["detail"]
    assert errors(output)[4]["detail"].startswith("a conversation is `messages`, or `prompt` with `response`")
    assert summary is not None
    assert (summary["rows"], summary["scored"], summary["errors"]["malformed_row"]) == (10, 3, 4)


async def test_rows_of_a_group_are_scored_however_they_fall_into_requests(start: Start, tmp_path: Path) -> None:
    rows = [row(float(i), group="g", group_size=6) for i in range(6)]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], output, batch=1))
    assert [one["reward"] for one in read(output)] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


async def test_a_row_that_the_model_cannot_score_is_an_error_row(start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [row(1.0), {"prompt": "p", "response": "nan"}])
    output = tmp_path / "out.jsonl"
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], output))
    assert [(one["id"], one["code"]) for one in errors(output)] == [("in.jsonl:2", "not_finite")]


async def test_a_row_of_the_output_tells_how_its_reward_came_about(start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [row(1.5, id="a", references={"helpful": {"rewards": [0.0, 1.0]}})])
    output = tmp_path / "out.jsonl"
    toml = ONE_TERM.replace('"identity"', '"centered"\nbaseline = { policy = "sft", method = "mean" }')
    async with start(toml) as running:
        await score(running.service, JobPlan([str(source)], output))
    term = read(output)[0]["terms"]["helpful"]
    assert (term["raw"], term["baseline"], term["baseline_source"], term["transformed"]) == (1.5, 0.5, "request", 1.0)
    assert (term["reference"]["count"], term["reference"]["method"]) == (2, "mean")
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest["pin"]["models"]["helpful"]["fingerprint"].startswith("sha256:")
    assert manifest["pin"]["recipe"]["terms"][0]["transform"] == "centered"


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({"prompt": "question", "response": "answer"}, {"question": "q", "answer": "1.5"}),
        ({"response": "answer"}, {"prompt": "q", "answer": "1.5", "messages": "not a conversation"}),
        ({"messages": "chosen"}, {"prompt": "q", "chosen": [{"role": "assistant", "content": "1.5"}], "rejected": []}),
        ({"id": "key"}, {"prompt": "q", "response": "1.5", "key": "k", "text": None}),
    ],
)
async def test_columns_of_other_names_are_taken_where_they_are_named(
    fields: dict[str, str], columns: dict[str, Any], start: Start, tmp_path: Path
) -> None:
    source, output = write(tmp_path / "in.jsonl", [columns]), tmp_path / "out.jsonl"
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], output, fields=fields))
    assert [one["reward"] for one in read(output)] == [1.5], errors(output)
    assert read(output)[0]["id"] == columns.get("key", "in.jsonl:1")


async def test_kept_columns_go_along(start: Start, tmp_path: Path) -> None:
    rows = [row(1.0, source="a", tags=["x", "\ud800"]), row(2.0, other="not asked for")]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], output, keep=["source", "tags"]))
    assert [(one["source"], one["tags"]) for one in read(output)] == [("a", ["x", "\ud800"]), (None, None)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fields": {"promt": "question"}}, "no field 'promt'; did you mean 'prompt'?"),
        ({"fields": {"messages": "a", "text": "b"}}, "'messages' and 'text' belong to two forms"),
        ({"keep": ["reward"]}, "--keep reward: the output has a column 'reward' of its own"),
        ({"output": Path("out.csv")}, "out.csv: the name ends in none of .jsonl, .parquet"),
        ({"output": Path("s3://bucket/out.jsonl")}, "the output is a local file"),
        ({"output": Path("nowhere/out.jsonl")}, "there is no folder nowhere"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_before_it_begins(options: dict[str, Any], told: str) -> None:
    plan = JobPlan(**{"inputs": ["in.jsonl"], "output": Path("out.jsonl"), **options})
    with pytest.raises(JobStopped) as refusal:
        plan.check()
    assert told in str(refusal.value)


async def test_neighbours_of_one_prompt_or_group_are_scored_in_one_request(start: Start, tmp_path: Path) -> None:
    prompts = [{"prompt": f"p{i // 3}", "response": str(i)} for i in range(12)]
    groups = [{"prompt": f"q{i}", "response": str(i), "group": f"g{i // 5}"} for i in range(15)]
    source, output = write(tmp_path / "in.jsonl", [*prompts, *groups]), tmp_path / "out.jsonl"
    engine = ScriptedEngine("helpful")
    async with start(ONE_TERM, helpful=engine) as running:
        await score(running.service, JobPlan([str(source)], output, batch=4))
    assert [one["reward"] for one in read(output)] == [*range(12), *range(15)]
    sizes = [len(items) for items in engine.calls if items]
    assert sizes == [6, 6, 5, 5, 5]


async def test_jobs_let_rollouts_go_first(start: Start, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [row(1.0)]), tmp_path / "out.jsonl"
    engine = ScriptedEngine("helpful")
    async with start(ONE_TERM, helpful=engine) as running:
        await score(running.service, JobPlan([str(source)], output))
        await running.http.post("/v1/score", json={"conversations": [row(1.0)]})
    asked = [priority.name for priority, items in zip(engine.priorities, engine.calls, strict=True) if items]
    assert asked == ["JOB", "ROLLOUT"]


async def test_a_request_that_is_too_large_is_halved(start: Start, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [row(i) for i in range(30)]), tmp_path / "out.jsonl"
    async with start(f"{ONE_TERM}[limits]\nmax_request_conversations = 4\n") as running:
        await score(running.service, JobPlan([str(source)], output, batch=30))
    assert [one["reward"] for one in read(output)] == list(range(30))
