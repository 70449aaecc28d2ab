"""How far a job is: a bar on a terminal, else a line every 10 seconds; both on standard error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from reward_service.jobs import Progress as JobProgress
from reward_service.jobs.running import Observe

LINE_EVERY_S = 10.0
STEPS = 10_000


@contextmanager
def shown_progress() -> Iterator[Observe]:
    """What to tell of a job's progress, until the end of the block."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(console).show
        return
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress).show


class _Rates:
    """Rates of this run, from the first progress that it tells."""

    def __init__(self) -> None:
        self._first: JobProgress | None = None

    def told(self, now: JobProgress) -> str:
        first = self._first = self._first or now
        seconds = max(now.seconds - first.seconds, 1e-9)
        rows = (now.scored + now.failed - first.scored - first.failed) / seconds
        tokens = (now.tokens - first.tokens) / seconds
        rates = f", {rows:,.0f}/s, {tokens:,.0f} tokens/s" if now is not first else ""
        return f"{now.scored + now.failed:,} rows{rates}, {now.failed:,} errors"

    def seconds_left(self, now: JobProgress) -> float | None:
        first = self._first or now
        done = now.share - first.share
        return None if done <= 0 else (now.seconds - first.seconds) * (1 - now.share) / done


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("waiting for the first answer", total=STEPS)
        self._rates = _Rates()

    def show(self, now: JobProgress) -> None:
        self._progress.update(self._task, completed=round(STEPS * now.share), description=self._rates.told(now))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = time.monotonic()
        self._rates = _Rates()

    def show(self, now: JobProgress) -> None:
        told, left = self._rates.told(now), self._rates.seconds_left(now)
        if time.monotonic() >= self._next:
            remaining = "" if left is None else f", {left / 60:.0f} min left"
            self._console.print(f"{100 * now.share:.1f} %: {told}{remaining}", soft_wrap=True)
            self._next = time.monotonic() + LINE_EVERY_S
