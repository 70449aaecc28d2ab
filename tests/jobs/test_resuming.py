"""A job that was ended goes on where it was, or says why it must not."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from reward_service.errors import EngineFailed, JobStopped
from reward_service.jobs import JobPlan, ServiceScorer, opened
from reward_service.schemas import PutBaselines
from tests.conftest import Running, Start
from tests.jobs.files import ONE_TERM, STORED, errors, read, row, score, scored_items, write
from tests.scripted import ScriptedEngine

ROWS = 60


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [row(i) if i % 10 else "not JSON" for i in range(ROWS)])


def plan_of(source: Path, **options: Any) -> JobPlan:
    return JobPlan([str(source)], source.with_name("out.jsonl"), **{"batch": 5, "concurrency": 1, **options})


def work(source: Path) -> Path:
    return source.with_name("out.jsonl.job")


async def undisturbed(start: Start, source: Path) -> tuple[bytes, bytes]:
    folder = source.parent / "undisturbed"
    folder.mkdir()
    async with start(ONE_TERM) as running:
        await score(running.service, JobPlan([str(source)], folder / "out.jsonl"))
    return (folder / "out.jsonl").read_bytes(), (folder / "out.jsonl.errors.jsonl").read_bytes()


def results(source: Path) -> tuple[bytes, bytes]:
    output = source.with_name("out.jsonl")
    return output.read_bytes(), output.with_name("out.jsonl.errors.jsonl").read_bytes()


async def test_a_stopped_job_goes_on_and_ends_as_if_it_had_not_been_stopped(start: Start, source: Path) -> None:
    engine = ScriptedEngine("helpful")
    async with start(ONE_TERM, helpful=engine) as running:
        stopped = await score(running.service, plan_of(source), stop_after=20)
        assert stopped is None
        assert not source.with_name("out.jsonl").exists()
        summary = await score(running.service, plan_of(source))
    assert results(source) == await undisturbed(start, source)
    assert scored_items(engine) == ROWS - ROWS // 10
    assert summary is not None
    assert (summary["scored"], summary["errors"]) == (54, {"malformed_row": 6})
    assert not work(source).exists()


async def test_what_was_written_after_the_last_commit_is_cut_off(start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=20)
        for name in ("rows.jsonl", "errors.jsonl"):
            with (work(source) / name).open("ab") as file:
                file.write(b'{"id": "in.jsonl:99", "rew')
        (work(source) / "state.tmp").write_text("{")
        await score(running.service, plan_of(source))
    assert results(source) == await undisturbed(start, source)


async def test_a_job_killed_between_its_last_commit_and_its_end_is_ended(start: Start, source: Path) -> None:
    kept = source.with_name("kept")
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=50)
        shutil.copytree(work(source), kept)
        await score(running.service, plan_of(source))
        shutil.copytree(kept, work(source))
        await score(running.service, plan_of(source))
    assert results(source) == await undisturbed(start, source)


async def test_a_job_killed_while_it_put_its_files_in_place_is_ended(start: Start, source: Path) -> None:
    engine = ScriptedEngine("helpful")
    async with start(ONE_TERM, helpful=engine) as running:
        await score(running.service, plan_of(source), stop_after=50)
        manifest, state = ((work(source) / name).read_text() for name in ("manifest.json", "state.json"))
        await score(running.service, plan_of(source))
        work(source).mkdir()
        (work(source) / "manifest.json").write_text(manifest)
        (work(source) / "state.json").write_text(json.dumps({**json.loads(state), "complete": True}))
        asked = scored_items(engine)
        summary = await score(running.service, plan_of(source))
    assert summary is not None
    assert scored_items(engine) == asked
    assert results(source) == await undisturbed(start, source)
    assert not work(source).exists()


async def test_a_finished_job_is_not_done_again(start: Start, source: Path) -> None:
    engine = ScriptedEngine("helpful")
    async with start(ONE_TERM, helpful=engine) as running:
        first = await score(running.service, plan_of(source))
        asked = scored_items(engine)
        assert await score(running.service, plan_of(source)) == first
        assert scored_items(engine) == asked
        write(source, [row(1.0)])
        with pytest.raises(
            JobStopped, match=r"was made from something else:\n  - inputs\.in\.jsonl\.size: \d+ before, \d+ now"
        ):
            await score(running.service, plan_of(source))
        again = await score(running.service, plan_of(source, restart=True))
    assert again is not None
    assert again["rows"] == 1
    assert read(source.with_name("out.jsonl"))[0]["reward"] == 1.0


async def test_a_file_that_no_job_has_made_is_not_overwritten(start: Start, source: Path) -> None:
    source.with_name("out.jsonl").write_text("mine")
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match="exists and no job has made it"):
            await score(running.service, plan_of(source))
    assert source.with_name("out.jsonl").read_text() == "mine"


def grow(source: Path) -> None:
    with source.open("a") as file:
        file.write(json.dumps(row(1.0)))


def change_in_place(source: Path) -> None:
    """The same size and, as a careless tool would have it, the same time."""
    status = source.stat()
    text = source.read_text()
    source.write_text(text.replace('"59"', '"95"'))
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch(source: Path) -> None:
    os.utime(source, (1, 1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (grow, r"inputs\.in\.jsonl\.size: \d+ before, \d+ now"),
        (change_in_place, r"inputs\.in\.jsonl\.sample"),
        (touch, r"inputs\.in\.jsonl\.modified: '\S+ \S+ UTC' before, '1970-01-01 00:00:01\.000000000 UTC' now"),
    ],
)
async def test_another_input_is_refused(change: Any, told: str, start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=20)
        change(source)
        with pytest.raises(JobStopped, match=told):
            await score(running.service, plan_of(source))
        assert await score(running.service, plan_of(source, restart=True)) is not None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fields": {"id": "key"}}, "fields.id: absent before, 'key' now"),
        ({"keep": ["source"]}, r"keep: \[\] before, \['source'\] now"),
        ({"objective": "raw"}, "objective: absent before, 'raw' now"),
    ],
)
async def test_another_description_of_the_job_is_refused(
    options: dict[str, Any], told: str, start: Start, source: Path
) -> None:
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=20)
        with pytest.raises(JobStopped, match=told):
            await score(running.service, plan_of(source, **options))


async def test_another_objective_is_refused_by_what_is_different_in_it(start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=20)
    async with start(ONE_TERM.replace("identity", "log_sigmoid")) as running:
        with pytest.raises(JobStopped) as refusal:
            await score(running.service, plan_of(source))
    assert "objective_hash: 'sha256:" in str(refusal.value)
    assert "transform: 'identity' before, 'log_sigmoid' now" in str(refusal.value)
    assert "--restart" in str(refusal.value)


async def test_another_model_is_refused(start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=20)
    async with start(ONE_TERM, helpful=ScriptedEngine("retrained")) as running:
        with pytest.raises(JobStopped, match=r"models\.helpful\.fingerprint: 'sha256:\w+' before, 'sha256:\w+' now"):
            await score(running.service, plan_of(source))


async def put(running: Running, reward: float) -> None:
    entries = [{"prompt": "How much?", "rewards": [reward] * 8}]
    document = {"model": "helpful", "policy": "sft", "entries": entries}
    await running.service.references.put(PutBaselines.model_validate(document))


async def test_other_baselines_are_refused_unless_they_are_allowed(start: Start, source: Path) -> None:
    async with start(STORED) as running:
        await put(running, 1.0)
        await score(running.service, plan_of(source), stop_after=20)
        await put(running, 2.0)
        with pytest.raises(JobStopped, match=r"baselines\.sft: 1 before, 2 now"):
            await score(running.service, plan_of(source))
        assert await score(running.service, plan_of(source, allow_baseline_changes=True)) is not None
    baselines = [one["terms"]["helpful"]["baseline"] for one in read(source.with_name("out.jsonl"))]
    assert (baselines[0], baselines[-1]) == (1.0, 2.0)


async def test_baselines_that_change_in_the_middle_stop_the_job(start: Start, source: Path) -> None:
    class Writing(ScriptedEngine):
        async def score(self, items: Any, **how: Any) -> Any:
            if len(self.calls) == 2:
                await put(running, 2.0)
            return await super().score(items, **how)

    async with start(STORED, helpful=Writing("helpful")) as running:
        await put(running, 1.0)
        with pytest.raises(JobStopped, match=r"expect\.baselines\.sft: revision 1 expected, it is 2 now"):
            await score(running.service, plan_of(source))
    written = read(work(source) / "rows.jsonl")
    assert written
    assert {one["terms"]["helpful"]["baseline"] for one in written} == {1.0}


async def test_a_service_that_fails_stops_the_job_and_costs_no_row(start: Start, source: Path) -> None:
    engine = ScriptedEngine("helpful")
    async with start(ONE_TERM, helpful=engine) as running:
        await score(running.service, plan_of(source), stop_after=20)
        engine.raises = EngineFailed("the device is gone")
        with pytest.raises(JobStopped, match="the device is gone"):
            await score(running.service, plan_of(source))
        engine.raises = None
        await score(running.service, plan_of(source))
    assert results(source) == await undisturbed(start, source)


async def test_rows_that_all_fail_for_no_reason_of_theirs_stop_the_job(start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "response": "boom"}] * 20)
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match="the service cannot score: the device failed"):
            await score(running.service, plan_of(source, batch=20))
    assert (work(source) / "rows.jsonl").read_bytes() == b""


async def test_a_job_that_is_told_to_stop_gives_up_what_is_not_answered_in_time(start: Start, source: Path) -> None:
    class Stuck(ScriptedEngine):
        async def score(self, items: Any, **how: Any) -> Any:
            if len(self.calls) == 1:
                self.gate = asyncio.Event()
                stop.set()
            return await super().score(items, **how)

    engine, stop = Stuck("helpful"), asyncio.Event()
    async with start(ONE_TERM, helpful=engine) as running:
        with opened(plan_of(source, grace_s=0.1)) as job:
            assert await job.run(ServiceScorer(running.service), lambda _: None, stop) is None
        assert engine.cancelled == 1
        assert 0 < len(read(work(source) / "rows.jsonl")) < 54
        engine.gate, engine.calls = None, [[], [], []]
        assert await score(running.service, plan_of(source)) is not None
    assert results(source) == await undisturbed(start, source)


async def test_two_runs_cannot_write_one_output(start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        with opened(plan_of(source)), pytest.raises(JobStopped, match="another run is at work"):
            await score(running.service, plan_of(source))
        assert await score(running.service, plan_of(source)) is not None


async def test_files_that_somebody_shortened_are_refused(start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        await score(running.service, plan_of(source), stop_after=20)
        with (work(source) / "rows.jsonl").open("r+b") as file:
            file.truncate(10)
        with pytest.raises(JobStopped, match=r"rows\.jsonl has 10 bytes instead of \d+"):
            await score(running.service, plan_of(source))


async def test_a_job_whose_first_rows_all_fail_stops_and_says_what_may_be_wrong(start: Start, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"question": "p", "answer": "1"}] * 1500)
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match=r"none of the first \d+ rows .*--field"):
            await score(running.service, plan_of(source, batch=100))
        summary = await score(running.service, plan_of(source, batch=100, max_errors=1500))
    assert summary is not None
    assert (summary["scored"], summary["failed"], len(errors(source.with_name("out.jsonl")))) == (0, 1500, 1500)


async def test_a_job_stops_at_so_many_errors(start: Start, source: Path) -> None:
    async with start(ONE_TERM) as running:
        with pytest.raises(JobStopped, match="3 rows have failed, more than --max-errors 2"):
            await score(running.service, plan_of(source, max_errors=2))
        assert await score(running.service, plan_of(source)) is not None
