"""The demo: real reward models, real baselines, and a table that shows how each reward came about."""

import asyncio
from collections.abc import Sequence
from itertools import groupby

import uvicorn
from rich.console import Console
from rich.table import Table

from reward_service.cli.serving import announce, run, serve
from reward_service.client import AsyncClient
from reward_service.demo import POLICY, DemoConversation, conversations, demo_config, global_snapshot, references
from reward_service.schemas import ConversationScore, ScoreAnswer, TermScore
from reward_service.service import Service

NARROWEST = 118
PROMPT_WIDTH = 100
RESPONSE_WIDTH = 34


def run_demo(*, port: int, once: bool) -> None:
    """Serve the bundled models, score the bundled conversations and print them; with `once`, end there."""

    async def show_and_go_on(server: uvicorn.Server, url: str) -> None:
        await show(url)
        if once:
            server.should_exit = True
        else:
            await announce(server, url)

    run(serve(demo_config(port), show_and_go_on, prepare=load_snapshots))


async def load_snapshots(service: Service) -> None:
    """Give the demo's policy its bundled global snapshots; a snapshot of other weights would be refused."""
    for model in service.catalog:
        await service.baselines.load_snapshot(global_snapshot(model.name), fingerprint=model.fingerprint, policy=POLICY)


async def show(url: str) -> None:
    """Store the reference responses, score the conversations over HTTP and print the table."""
    asked = conversations()
    async with AsyncClient(url) as client:
        for model in (await client.models()).models:
            await client.put_baselines(model.name, POLICY, references(), idempotency_key="demo")
        answer = await client.score([{"id": c.id, "prompt": c.prompt, "response": c.response} for c in asked])
    console = Console()
    if console.width < NARROWEST:
        console = Console(width=NARROWEST)
    await asyncio.to_thread(console.print, _table(asked, answer))
    console.print(_explanation(answer), highlight=False)


def _table(asked: Sequence[DemoConversation], answer: ScoreAnswer) -> Table:
    table = Table(title=f"{len(asked)} conversations, objective {answer.objective!r}", title_justify="left")
    table.add_column("response", max_width=RESPONSE_WIDTH, no_wrap=True)
    for term in answer.recipe.terms:
        for column in (f"{term.name}\nraw", "baseline", "source", "transformed"):
            table.add_column(column, justify="right", no_wrap=True)
    table.add_column("reward", justify="right", style="bold")
    rows = zip(asked, answer.scores, strict=True)
    for question, of_prompt in groupby(rows, key=lambda row: row[0].question):
        table.add_section()
        table.add_row(f"[bold]{_shortened(question, PROMPT_WIDTH)}[/bold]")
        for conversation, score in sorted(of_prompt, key=lambda row: -(row[1].reward or 0.0)):
            table.add_row(*_cells(conversation, score))
    return table


def _cells(conversation: DemoConversation, score: ConversationScore) -> list[str]:
    text = f"{conversation.kind}: {conversation.response}"
    numbers = [cell for term in score.terms for cell in _term_cells(term)]
    return [_shortened(text, RESPONSE_WIDTH), *numbers, _number(score.reward)]


def _term_cells(term: TermScore) -> tuple[str, str, str, str]:
    return _number(term.raw), _number(term.baseline), term.baseline_source or "-", _number(term.transformed)


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _shortened(text: str, width: int) -> str:
    flat = " ".join(text.split()).replace("[", "(").replace("]", ")")
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def _explanation(answer: ScoreAnswer) -> str:
    models = "; ".join(f"{name} {used.fingerprint[:19]}… ({used.dtype})" for name, used in answer.models.items())
    return (
        "raw: the model's score. baseline: the .85 quantile of the reference responses to the same prompt.\n"
        "transformed: log sigmoid((raw - baseline) / temperature), the log-probability of beating the baseline.\n"
        f"reward: their sum, log P(good on both counts). models: {models}\n"
        f"{answer.usage.tokens} tokens in {answer.timings_ms.total:.0f} ms"
    )
