"""`score`: conversations of files in, their rewards out; shows how far it is and ends in good order when told to."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from reward_service.cli.progress import shown_progress
from reward_service.client import AsyncClient
from reward_service.client.settings import KEY_VARIABLE
from reward_service.config import Config, read_config
from reward_service.errors import JobStopped
from reward_service.jobs import Job, JobPlan, Scorer, ServerScorer, ServiceScorer, opened
from reward_service.service import running

LONGEST_REQUEST_S = 3600.0
"""In this process nobody else waits, so that a request may take its time."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOST_KEPT_SCORES = 10_000
"""A file seldom repeats itself, so that more would only take memory; the store keeps them all for another run."""


def score(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="IN...", help="JSONL (also .gz) or Parquet: paths, patterns, URLs", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help=".jsonl or .parquet", show_default=False)],
    objective: Annotated[str | None, typer.Option(help="the objective; default: the service's own")] = None,
    url: Annotated[
        list[str] | None, typer.Option("--url", help="a running service; again for each replica", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="or a configuration, to run in this process")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="FIELD=COLUMN", help="the column of a conversation's field, prompt=question"),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="a column that goes along to the output")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="conversations in a request")] = 256,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="requests at once")] = 4,
    max_errors: Annotated[int | None, typer.Option(min=0, help="stop when more rows than this have failed")] = None,
    allow_baseline_changes: Annotated[
        bool, typer.Option("--allow-baseline-changes", help="go on when baselines are written meanwhile")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="begin anew, and replace an earlier output")] = False,
    wait: Annotated[float, typer.Option(min=0.1, help="how long to wait for a service that is gone, s")] = 3600.0,
    strict: Annotated[bool, typer.Option("--strict", help="exit 1 when a row has no reward")] = False,
) -> None:
    """Score the conversations of files. The same command goes on where an earlier run of it was ended."""
    if bool(url) == (config is not None):
        raise typer.BadParameter("give either --url (a running service) or --config (to run in this process)")
    plan = JobPlan(
        inputs=inputs,
        output=output,
        objective=objective,
        fields=_pairs(fields or ()),
        keep=keep or (),
        batch=batch,
        concurrency=concurrency,
        max_errors=max_errors,
        allow_baseline_changes=allow_baseline_changes,
        restart=restart,
    )
    with opened(plan) as job:
        parsed = None if config is None else read_config(config)
        try:
            summary, signalled = asyncio.run(_run(job, url or (), parsed, wait))
        except KeyboardInterrupt:
            summary, signalled = None, signal.SIGINT
    if summary is None:
        typer.echo(f"{output}: stopped; run the same command again to go on", err=True)
        raise typer.Exit(128 + int(signalled or signal.SIGINT))
    _tell(output, summary)
    if strict and summary["failed"]:
        raise typer.Exit(1)


def _pairs(fields: Sequence[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in fields]
    for name, equals, column in pairs:
        if not (name and equals and column):
            raise typer.BadParameter(f"{name!r}: give FIELD=COLUMN, such as prompt=question", param_hint="--field")
    return {name: column for name, _, column in pairs}


@dataclass(slots=True)
class _Stop:
    """Set by the first signal; the second one ends the process as it does by default."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    signalled: signal.Signals | None = None

    def listen(self) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on, number)

    def _on(self, number: signal.Signals) -> None:
        self.signalled = number
        self.event.set()
        typer.echo("finishing the requests under way; once more ends at once", err=True)
        for each in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(each)


async def _run(
    job: Job, urls: Sequence[str], config: Config | None, wait_s: float
) -> tuple[dict[str, Any] | None, signal.Signals | None]:
    """The summary, or None and the signal that stopped the job."""
    async with _scorer(urls, config, wait_s) as scorer:
        stop = _Stop()
        stop.listen()
        with shown_progress() as observe:
            return await job.run(scorer, observe, stop.event), stop.signalled


@asynccontextmanager
async def _scorer(urls: Sequence[str], config: Config | None, wait_s: float) -> AsyncIterator[Scorer]:
    if config is None:
        # Every failed row stands in the error file: the client need not log them too.
        logging.getLogger("reward_service.client").addFilter(lambda record: record.module != "failing")
        async with _client(urls, wait_s) as client:
            yield ServerScorer(client)
        return
    async with running(_for_a_job(config)) as service:
        yield ServiceScorer(service)


def _for_a_job(config: Config) -> Config:
    kept = min(config.score_cache.max_entries, MOST_KEPT_SCORES)
    return config.model_copy(
        update={
            "limits": config.limits.model_copy(update={"request_timeout_s": LONGEST_REQUEST_S}),
            "score_cache": config.score_cache.model_copy(update={"max_entries": kept}),
        }
    )


def _client(urls: Sequence[str], wait_s: float) -> AsyncClient:
    try:
        return AsyncClient(urls, api_key=os.environ.get(KEY_VARIABLE), on_failure="none", deadline_s=wait_s)
    except ValueError as error:
        raise JobStopped(str(error)) from error


def _tell(output: Path, summary: dict[str, Any]) -> None:
    typer.echo(f"{output}: {summary['scored']:,} of {summary['rows']:,} rows scored")
    if summary["failed"]:
        codes = ", ".join(f"{code}: {count:,}" for code, count in summary["errors"].items())
        typer.echo(f"{summary['failed']:,} rows have no reward ({codes}); see {output}.errors.jsonl")
    if summary["scored"]:
        reward = summary["reward"]
        std = "-" if reward["std"] is None else f"{reward['std']:.4g}"
        typer.echo(f"reward: mean {reward['mean']:.4g}, std {std}, median {reward['p50']:.4g}")
    typer.echo(f"{summary['tokens']:,} tokens in {summary['seconds']:.1f} s; report: {output}.report.html")
