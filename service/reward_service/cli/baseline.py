"""`baseline build` and `baseline coverage`: reference rows from a file, and which prompts have none."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from reward_service.api.app import in_process_app
from reward_service.cli.prompts import PromptRow, read_prompts
from reward_service.client import AsyncClient
from reward_service.client.settings import KEY_VARIABLE
from reward_service.config import read_config
from reward_service.service import running

baseline = typer.Typer(
    help="Reference rows: build them from a file, and see which prompts have none.", no_args_is_help=True
)

RESPONSES_PER_CALL = 256
PROMPTS_PER_CALL = 512
SHOWN = 10
REACHED_S = 5.0
"""How soon a service must answer for the first time: a wrong URL is told at once, and a restart later waited for."""

Url = Annotated[str | None, typer.Option("--url", help="a running service", show_default=False)]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="or a configuration, to run in this process", show_default=False)
]
Policy = Annotated[str, typer.Option(help="policy whose responses the references are", show_default=False)]
ModelNames = Annotated[list[str] | None, typer.Option("--model", help="only these models", show_default="all")]


@baseline.command()
def build(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSONL: prompt with responses, response or rewards", show_default=False),
    ],
    policy: Policy,
    policy_revision: Annotated[
        str | None, typer.Option(help="what the policy's name stands for", show_default=False)
    ] = None,
    model: ModelNames = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="add to the stored references instead of replacing them")
    ] = False,
    take_global: Annotated[bool, typer.Option("--global", help="also take the global snapshot anew")] = False,
    min_references: Annotated[int, typer.Option(min=1, help="how many a prompt needs to count in the snapshot")] = 8,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Store the references of a file's prompts. Run again with the same file, it changes nothing."""
    rows = read_prompts(file, needs_references=True)
    source = hashlib.sha256(file.read_bytes()).hexdigest()

    async def work(client: AsyncClient) -> None:
        for name in model or [one.name for one in (await client.models()).models]:
            written = 0
            for part in _parts(rows):
                result = await client.put_baselines(
                    name,
                    policy,
                    [row.entry(source) for row in part],
                    mode="merge" if merge else "replace",
                    policy_revision=policy_revision,
                )
                written += result.written
            typer.echo(f"{name}: {len(rows)} prompts, {sum(map(len, rows))} references, {written} prompts changed")
            if take_global:
                snapshot = await client.build_global_baseline(name, policy, min_references=min_references)
                typer.echo(f"{name}: global snapshot of {snapshot.count} references from {snapshot.prompts} prompts")

    _with_client(url, config, work)


@baseline.command()
def coverage(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL with a prompt in each row", show_default=False)],
    policy: Policy,
    model: ModelNames = None,
    min_references: Annotated[int, typer.Option(min=1, help="how many references a prompt needs")] = 8,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="exit 1 under this share of prompts")] = 1.0,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Say which prompts of a file have too few references; exit 1 when the share that has enough is too low."""
    rows = read_prompts(file, needs_references=False)
    shares: list[float] = []

    async def work(client: AsyncClient) -> None:
        for name in model or [one.name for one in (await client.models()).models]:
            lacking = [row for row, count in await _counts(client, name, policy, rows) if count < min_references]
            shares.append(1 - len(lacking) / len(rows))
            typer.echo(
                f"{name}: {len(rows) - len(lacking)} of {len(rows)} prompts have {min_references} references or more"
            )
            for row in lacking[:SHOWN]:
                typer.echo(f"  lacking: line {row.line}: {row.shown}")
            if len(lacking) > SHOWN:
                typer.echo(f"  and {len(lacking) - SHOWN} more")

    _with_client(url, config, work)
    if min(shares) < threshold:
        raise typer.Exit(1)


async def _counts(
    client: AsyncClient, model: str, policy: str, rows: Sequence[PromptRow]
) -> list[tuple[PromptRow, int]]:
    """The rows with how many references each has; prompts with the same tools are asked for together."""
    counts: list[tuple[PromptRow, int]] = []
    by_tools = groupby(sorted(rows, key=_tools_key), key=_tools_key)
    for same_tools in (list(group) for _, group in by_tools):
        for start in range(0, len(same_tools), PROMPTS_PER_CALL):
            part = same_tools[start : start + PROMPTS_PER_CALL]
            prompts, tools = [row.prompt for row in part], part[0].tools
            answer = await client.query_baselines(model, policy, prompts, tools=tools)
            counts += [(row, one.count) for row, one in zip(part, answer.baselines, strict=True)]
    return counts


def _tools_key(row: PromptRow) -> str:
    return json.dumps(row.tools, sort_keys=True)


def _parts(rows: Sequence[PromptRow]) -> list[list[PromptRow]]:
    """The rows in order, in parts of at most so many references (a single prompt may have more)."""
    parts: list[list[PromptRow]] = [[]]
    for row in rows:
        if parts[-1] and sum(map(len, parts[-1])) + len(row) > RESPONSES_PER_CALL:
            parts.append([])
        parts[-1].append(row)
    return parts


def _with_client(
    url: str | None, config: Path | None, work: Callable[[AsyncClient], Coroutine[Any, Any, None]]
) -> None:
    if (url is None) == (config is None):
        raise typer.BadParameter("give either --url (a running service) or --config (to run in this process)")

    async def run() -> None:
        async with _client(url, config) as client:
            await work(client)

    asyncio.run(run())


@asynccontextmanager
async def _client(url: str | None, config: Path | None) -> AsyncIterator[AsyncClient]:
    if config is None:
        key = os.environ.get(KEY_VARIABLE)
        async with AsyncClient(str(url), api_key=key, deadline_s=REACHED_S) as client:
            await client.models()
        async with AsyncClient(str(url), api_key=key) as client:
            yield client
        return
    async with running(read_config(config)) as service:
        transport = httpx.ASGITransport(in_process_app(service))
        async with AsyncClient("http://in-process", transport=transport) as client:
            yield client
