"""Every command of `reward-service`, and how each ends when something is wrong."""

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from reward_service import __version__
from reward_service.api.app import routed_app
from reward_service.cli.baseline import baseline
from reward_service.cli.demo import run_demo
from reward_service.cli.keys import key
from reward_service.cli.parity import run_parity
from reward_service.cli.score import score
from reward_service.cli.serving import run_server
from reward_service.client import RequestFailed, Unavailable
from reward_service.config import read_config
from reward_service.errors import ConfigError, JobStopped, ServiceError

app = typer.Typer(
    name="reward-service",
    help="Serves reward models: raw, transformed and aggregated rewards, each with its provenance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(baseline, name="baseline")
app.command()(key)
app.command()(score)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="the TOML file", show_default=False)]


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Serve reward models for RLHF."""


@app.command()
def serve(config: ConfigFile) -> None:
    """Run the service until Ctrl-C."""
    run_server(read_config(config))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="end after the table instead of serving on")] = False,
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one")] = 8000,
) -> None:
    """Score bundled conversations with the two bundled reward models, show how each reward came about, then serve."""
    run_demo(port=0 if once else port, once=once)


@app.command()
def check(
    config: ConfigFile,
    parity: Annotated[bool, typer.Option("--parity", help="also load each model and check its scores")] = False,
) -> None:
    """Say everything that is wrong with a configuration; exit 1 if anything is. Loads no model without --parity."""
    checked = read_config(config)
    models = ", ".join(model.name for model in checked.models)
    objectives = ", ".join(objective.name for objective in checked.objectives) or "none"
    typer.echo(f"{config}: valid; models: {models}; objectives: {objectives}")
    if parity and not run_parity(checked):
        raise typer.Exit(1)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    typer.echo(yaml.safe_dump(routed_app().openapi(), sort_keys=False, allow_unicode=True, width=120), nl=False)


def main() -> None:
    """Run the command line; an expected failure is one message and exit code 1, never a traceback."""
    try:
        app()
    except (ConfigError, JobStopped) as error:
        sys.exit(str(error))
    except ServiceError as error:
        sys.exit(f"{error.title}: {error.detail}")
    except RequestFailed as error:
        sys.exit(str(error))
    except Unavailable as error:
        sys.exit(f"the service cannot be reached: {error}")
