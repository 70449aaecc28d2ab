"""A job from its first row to its report: read ahead, score several requests at once, write in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reward_service.errors import JobStopped
from reward_service.jobs.files import read_json
from reward_service.jobs.finishing import finish
from reward_service.jobs.inputs import InputFile, find_inputs
from reward_service.jobs.pinning import check_unchanged, manifest_of, pin_of
from reward_service.jobs.plan import JobPlan
from reward_service.jobs.rows import Row, chunks, rows
from reward_service.jobs.scorers import Refused, Scorer
from reward_service.jobs.scoring import ChunkScorer, Scored
from reward_service.jobs.workspace import Workspace, beside
from reward_service.jobs.writing import Writer

AHEAD = 2
"""So many times the requests that are answered at once may wait for their turn to be written."""
Window = deque[tuple[list[Row], asyncio.Task[Scored]]]


class Unanswered(Exception):
    """A request that is given up, since the job was told to stop."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, earlier runs included; `share` is that of the input's bytes."""

    scored: int
    failed: int
    tokens: int
    seconds: float
    share: float


Observe = Callable[[Progress], None]


class Job:
    """A job that holds its workspace; made by `opened`."""

    def __init__(self, plan: JobPlan, inputs: Sequence[InputFile], workspace: Workspace) -> None:
        self.plan = plan
        self.inputs = inputs
        self._workspace = workspace
        self._manifest = manifest_of(plan, inputs)
        self._bytes_before = [sum(file.size for file in inputs[:place]) for place in range(len(inputs))]
        self._total = max(1, sum(file.size for file in inputs))

    def check(self) -> None:
        """JobStopped when the files here belong to another job than this one."""
        if self.plan.restart:
            self._workspace.clear()
            return
        begun, finished = self._workspace.manifest(), self._finished()
        if begun is not None:
            check_unchanged(begun, self._manifest, f"{self.plan.output} was begun with something else")
        elif finished is not None:
            check_unchanged(finished["job"], self._manifest, f"{self.plan.output} was made from something else")
        elif self.plan.output.exists():
            raise JobStopped(
                f"{self.plan.output} exists and no job has made it; choose another name, or give --restart"
            )

    async def run(self, scorer: Scorer, observe: Observe, stop: asyncio.Event) -> dict[str, Any] | None:
        """The summary when every row has its reward or error, None when `stop` ended the run before.

        JobStopped says what hinders it; everything that was committed stays.
        """
        pin = await self._present(scorer)
        finished = None if self.plan.restart else self._finished()
        if finished is not None and self._workspace.manifest() is None:
            self._check_pin(finished["pin"], pin)
            return dict(read_json(beside(self.plan.output, "summary.json")))
        await asyncio.to_thread(self._workspace.begin, self._manifest)
        state = self._workspace.state
        if state.pin is not None:
            self._check_pin(state.pin, pin)
        state.pin = pin
        if not state.complete and not await self._rest(ChunkScorer(self.plan, scorer, pin), observe, stop):
            return None
        return await asyncio.to_thread(finish, self._workspace, self._manifest)

    async def _present(self, scorer: Scorer) -> dict[str, Any]:
        """What would score now, learnt from a request without conversations."""
        try:
            return pin_of(await scorer.score([], self.plan.objective, None))
        except Refused as error:
            raise JobStopped(f"the service refuses the job: {error}") from error

    def _finished(self) -> Any:
        output = self.plan.output
        return read_json(beside(output, "manifest.json")) if output.exists() else None

    def _check_pin(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        left_out = {"baselines"} if self.plan.allow_baseline_changes else set()
        if before["objective_hash"] == now["objective_hash"]:
            left_out |= {"recipe"}
        first, second = ({name: pin[name] for name in pin if name not in left_out} for pin in (before, now))
        check_unchanged(first, second, f"{self.plan.output} was begun with other numbers")

    async def _rest(self, scorer: ChunkScorer, observe: Observe, stop: asyncio.Event) -> bool:
        """Score what is not yet written, and whether all of it is now."""
        window: Window = deque()
        try:
            self._workspace.state.complete = await self._pump(scorer, observe, stop, window)
        except Unanswered:
            self._workspace.state.complete = False
        except JobStopped:
            await asyncio.to_thread(self._workspace.commit)
            raise
        finally:
            for _, scoring in window:
                scoring.cancel()
            await asyncio.gather(*(scoring for _, scoring in window), return_exceptions=True)
        await asyncio.to_thread(self._workspace.commit)
        return self._workspace.state.complete

    async def _pump(self, scorer: ChunkScorer, observe: Observe, stop: asyncio.Event, window: Window) -> bool:
        """Read and score ahead, write in order; what is answered soon after `stop` is set is still written."""
        writer = Writer(self.plan, self._workspace)
        source = chunks(rows(self.plan, self.inputs, self._workspace.state.end), self.plan.batch)

        async def write_first() -> None:
            chunk, scoring = window[0]
            await _answered(scoring, stop, self.plan.grace_s)
            await asyncio.to_thread(writer.write, chunk, scoring.result())
            window.popleft()
            observe(self._progress(chunk[-1]))

        chunk: list[Row] | JobStopped | None = None
        while not stop.is_set() and isinstance(chunk := await _next(source), list):
            window.append((chunk, asyncio.create_task(scorer.score(chunk))))
            while window and (len(window) >= AHEAD * self.plan.concurrency or window[0][1].done()):
                await write_first()
        while window:
            await write_first()
        if isinstance(chunk, JobStopped):
            raise chunk
        return not stop.is_set()

    def _progress(self, row: Row) -> Progress:
        state = self._workspace.state
        share = (self._bytes_before[row.end.file] + row.consumed) / self._total
        return Progress(state.scored, state.errors, state.tokens, state.seconds, share)


async def _answered(scoring: asyncio.Task[Scored], stop: asyncio.Event, grace_s: float) -> None:
    """Wait for an answer; Unanswered when there is none within the grace after `stop` is set."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({scoring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        answered, _ = await asyncio.wait({scoring}, timeout=grace_s)
        if not answered:
            raise Unanswered
    finally:
        stopping.cancel()


async def _next(source: Iterator[list[Row]]) -> list[Row] | JobStopped | None:
    """The next chunk, None at the end; what hinders reading is raised only when the rows before it are written."""
    try:
        return await asyncio.to_thread(next, source, None)
    except JobStopped as error:
        return error


@contextmanager
def opened(plan: JobPlan) -> Iterator[Job]:
    """A job that is ready to run; JobStopped when it cannot be done, or when another process is at it."""
    plan.check()
    inputs = find_inputs(plan.inputs)
    with Workspace(plan.output) as workspace:
        job = Job(plan, inputs, workspace)
        job.check()
        yield job
