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

WIDTH = 132
RESPONSE_WIDTH = 30


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
    await asyncio.to_thread(_print, asked, answer)


def _print(asked: Sequence[DemoConversation], answer: ScoreAnswer) -> None:
    console = Console(width=WIDTH, highlight=False)
    console.print(f"[bold]{len(asked)} conversations, objective {answer.objective!r}[/bold]\n")
    console.print(_header(answer))
    rows = zip(asked, answer.scores, strict=True)
    for question, of_prompt in groupby(rows, key=lambda row: row[0].question):
        console.print(f"\n[bold cyan]{_shortened(question, WIDTH - 2)}[/bold cyan]")
        table = _columns(answer)
        for conversation, score in sorted(of_prompt, key=lambda row: -(row[1].reward or 0.0)):
            table.add_row(*_cells(conversation, score))
        console.print(table)
    console.print(_explanation(answer))


def _header(answer: ScoreAnswer) -> Table:
    """The names of the columns, the terms' names above theirs."""
    table = _columns(answer)
    table.add_row("", *(cell for term in answer.recipe.terms for cell in (f"[bold]{term.name}[/bold]", "", "", "")), "")
    table.add_row("response", *("raw", "baseline", "source", "transformed") * len(answer.recipe.terms), "reward")
    return table


def _columns(answer: ScoreAnswer) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=RESPONSE_WIDTH, no_wrap=True)
    for _ in answer.recipe.terms:
        for width in (8, 8, 8, 11):
            table.add_column(width=width, justify="right", no_wrap=True)
    table.add_column(width=7, justify="right", style="bold", no_wrap=True)
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
    models = "\n".join(f"  {name}: {used.fingerprint} ({used.dtype})" for name, used in answer.models.items())
    return (
        "\nraw          the model's score of the conversation\n"
        "baseline     the .85 quantile of the reference responses to the same prompt\n"
        "transformed  log sigmoid((raw - baseline) / temperature): log P(the response beats the baseline)\n"
        "reward       the sum of both: log P(it does so on both counts), the number to train on\n\n"
        f"{answer.usage.tokens} tokens in {answer.timings_ms.total:.0f} ms by the models\n{models}"
    )
