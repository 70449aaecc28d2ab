"""`reward-service key`: a new API key, and the table that lets it in."""

import hashlib
import secrets
from typing import Annotated

import typer
from pydantic import ValidationError

from reward_service.config import ApiKeyConfig
from reward_service.problems import sentences

PREFIX = "rs_"
RANDOM_BYTES = 32


def key(
    name: Annotated[str, typer.Argument(help="who will hold the key", show_default=False)],
    scope: Annotated[
        list[str], typer.Option(help="what it opens: score, baselines, metrics, admin; may be repeated")
    ] = ["score"],  # noqa: B006  # typer copies it
) -> None:
    """Make an API key: print it once, and the table for the configuration, which holds only its digest."""
    secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    try:
        table = ApiKeyConfig.model_validate({"name": name, "sha256": digest, "scopes": scope})
    except ValidationError as error:
        raise typer.BadParameter("; ".join(sentences(error.errors(), ApiKeyConfig))) from error
    typer.echo(f"The key, which is shown only now; send it as the header authorization: Bearer KEY\n\n{secret}\n")
    typer.echo(f"For the configuration of the service:\n\n{_as_toml(table)}")


def _as_toml(table: ApiKeyConfig) -> str:
    scopes = ", ".join(f'"{scope}"' for scope in table.scopes)
    return f'[[api_keys]]\nname = "{table.name}"\nsha256 = "{table.sha256}"\nscopes = [{scopes}]'
