"""Reading a configuration: TOML, `${NAME}` from the environment, and every problem of the file at once."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from reward_service.config.checks import cross_problems
from reward_service.config.schema import Config, LimitsConfig, ModelConfig, ObjectiveConfig, ServerConfig, StoreConfig
from reward_service.errors import ConfigError
from reward_service.problems import nearest, sentences

T = TypeVar("T")


def read_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration in the TOML file `path`; ConfigError names every problem found in it."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
    return parse_config(tables, environment, source=str(path))


def parse_config(
    tables: Mapping[str, Any], environment: Mapping[str, str] = os.environ, *, source: str = "configuration"
) -> Config:
    """The configuration in `tables` (a parsed TOML document); ConfigError names every problem found in them."""
    problems: list[str] = []
    filled = _fill(tables, "", environment, problems)
    sections = _Sections(filled, problems)
    problems += cross_problems(filled, sections.models, sections.objectives)
    if problems:
        raise ConfigError(source, list(dict.fromkeys(problems)))
    return Config.model_validate(filled)


class _Sections:
    """The parts of a file that are valid by themselves, so that one bad part does not hide another's problems."""

    def __init__(self, tables: dict[str, Any], problems: list[str]) -> None:
        self._problems = problems
        unknown = [key for key in tables if key not in Config.model_fields]
        problems += [f"{key}: unknown field {key!r}{nearest(key, Config.model_fields)}" for key in unknown]
        self._part(ServerConfig, tables.get("server", {}), "server")
        self._part(StoreConfig, tables.get("store", {}), "store")
        self._part(LimitsConfig, tables.get("limits", {}), "limits")
        self.models = self._list(ModelConfig, tables, "models")
        self.objectives = self._list(ObjectiveConfig, tables, "objectives")
        if not tables.get("models"):
            problems.append("models: at least one [[models]] table is required")

    def _part(self, kind: type[T], value: object, path: str) -> T | None:
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            self._problems += sentences(error.errors(), kind, path)
            return None

    def _list(self, kind: type[T], tables: Mapping[str, Any], name: str) -> list[tuple[str, T]]:
        values = tables.get(name, [])
        if not isinstance(values, list):
            self._problems.append(f"{name}: expected tables written as [[{name}]]")
            return []
        parts = [(f"{name}[{i}]", self._part(kind, value, f"{name}[{i}]")) for i, value in enumerate(values)]
        return [(path, part) for path, part in parts if part is not None]


_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def _fill(value: Any, path: str, environment: Mapping[str, str], problems: list[str]) -> Any:
    """`value` with each `${NAME}` in its strings replaced from the environment."""
    if isinstance(value, Mapping):
        return {k: _fill(v, f"{path}.{k}" if path else k, environment, problems) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, f"{path}[{i}]", environment, problems) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    unset = [name for name in _REFERENCE.findall(value) if name not in environment]
    problems += [f"{path}: ${{{name}}} is not set in the environment" for name in unset]
    return _REFERENCE.sub(lambda match: environment.get(match[1], match[0]), value)
