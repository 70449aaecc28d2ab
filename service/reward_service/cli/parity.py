"""`check --parity`: loads each model by itself, scores the golden conversations and says whether it would be served."""

import asyncio
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.table import Table

from reward_service.config import Config, ModelConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Parity
from reward_service.engine.parity.refusal import ParityRefused
from reward_service.errors import NotReady

WIDTH = 132
COMPARED = {"reference": "Transformers", "self": "itself"}


@dataclass(frozen=True, slots=True)
class Checked:
    """A model, the numbers of its check as far as there are any, and why it is refused; None when it is not."""

    model: str
    parity: Parity | None
    refusal: str | None


def run_parity(config: Config) -> bool:
    """Prints what was found of every model; whether all would be served."""
    checked = asyncio.run(_all(config))
    Console(width=WIDTH, highlight=False).print(_table(checked))
    refusals = [one.refusal for one in checked if one.refusal is not None]
    for refusal in refusals:
        typer.echo(refusal)
    return not refusals


async def _all(config: Config) -> list[Checked]:
    return [await _check(model, config.limits.max_queued_tokens) for model in config.models]


async def _check(model: ModelConfig, max_queued_tokens: int) -> Checked:
    devices = Devices(max_queued_tokens=max_queued_tokens)
    engine = create(model, devices)
    try:
        await engine.start()
        return Checked(model.name, engine.card.parity, None)
    except ParityRefused as error:
        return Checked(model.name, error.parity, error.detail)
    except NotReady as error:
        return Checked(model.name, None, error.detail)
    finally:
        await engine.close()
        await devices.close()


def _table(checked: list[Checked]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("model", "compared with", "conversations", "largest difference", "tolerance", "verdict"):
        table.add_column(name, justify="left" if name in ("model", "compared with", "verdict") else "right")
    for one in checked:
        table.add_row(one.model, *_numbers(one.parity), "served" if one.refusal is None else "refused")
    return table


def _numbers(parity: Parity | None) -> tuple[str, ...]:
    if parity is None:
        return ("-",) * 4
    numbers = ["-" if number is None else f"{number:.3g}" for number in (parity.difference, parity.tolerance)]
    return COMPARED[parity.mode], str(parity.conversations), *numbers
