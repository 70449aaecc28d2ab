"""Reading a configuration: TOML, `${NAME}` from the environment, and every problem of the file at once."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from reward_service.config.access import ApiKeyConfig, LimitsConfig, ServerConfig
from reward_service.config.checks import cross_problems
from reward_service.config.observing import TelemetryConfig
from reward_service.config.schema import Config, ModelConfig, ObjectiveConfig, ScoreCacheConfig
from reward_service.config.storing import StoreConfig
from reward_service.errors import ConfigError
from reward_service.problems import nearest, sentences


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
    problems += _section_problems(filled)
    problems += cross_problems(filled)
    if problems:
        raise ConfigError(source, list(dict.fromkeys(problems)))
    return Config.model_validate(filled)


def _section_problems(tables: Mapping[str, Any]) -> list[str]:
    """What is wrong with each table by itself, so that one bad part does not hide another's problems."""
    unknown = [key for key in tables if key not in Config.model_fields]
    problems = [f"{key}: unknown field {key!r}{nearest(key, Config.model_fields)}" for key in unknown]
    problems += _problems(ServerConfig, tables.get("server", {}), "server")
    problems += _problems(StoreConfig, tables.get("store", {}), "store")
    problems += _problems(ScoreCacheConfig, tables.get("score_cache", {}), "score_cache")
    problems += _problems(LimitsConfig, tables.get("limits", {}), "limits")
    problems += _problems(TelemetryConfig, tables.get("telemetry", {}), "telemetry")
    problems += _list_problems(ApiKeyConfig, tables.get("api_keys", []), "api_keys")
    problems += _list_problems(ModelConfig, tables.get("models", []), "models")
    problems += _list_problems(ObjectiveConfig, tables.get("objectives", []), "objectives")
    if not tables.get("models"):
        problems.append("models: at least one [[models]] table is required")
    return problems


def _list_problems(section: type[BaseModel], values: object, name: str) -> list[str]:
    if not isinstance(values, list):
        return [f"{name}: expected tables written as [[{name}]]"]
    return [problem for i, value in enumerate(values) for problem in _problems(section, value, f"{name}[{i}]")]


def _problems(section: type[BaseModel], value: object, path: str) -> list[str]:
    try:
        section.model_validate(value)
    except ValidationError as error:
        return sentences(error.errors(), section, path)
    return []


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
