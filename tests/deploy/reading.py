"""The files of the deployment, read as their tools read them."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRETS = {
    "REDIS_PASSWORD": "redis-password",
    "TRAINER_KEY_SHA256": "1" * 64,
    "OPERATOR_KEY_SHA256": "2" * 64,
    "METRICS_KEY_SHA256": "3" * 64,
}
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


def compose() -> dict[str, Any]:
    """docker-compose.yml with the variables of a fresh `.env` and the defaults of the others."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(_value, text))
    return document


def _value(found: "re.Match[str]") -> str:
    name, kind, default = found.groups()
    if name in SECRETS:
        return SECRETS[name]
    assert kind == "-", f"{name} has no default and is no secret"
    return str(default)


def installed(tool: str) -> str:
    """A tool that the development packages bring."""
    path = Path(sys.executable).parent / tool
    assert path.is_file(), f"{tool} is not installed: pip install '.[dev]'"
    return str(path)


def services() -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def dockerfile() -> list[tuple[str, str]]:
    """The instructions: keyword and the rest, lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name; those of the last, which has none, under ``""``."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = "before"
    for keyword, rest in dockerfile():
        if keyword == "FROM":
            name = rest.partition(" AS ")[2]
        found.setdefault(name, []).append((keyword, rest))
    return found


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    document: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/reward-service.json").read_text("utf-8"))
    return document
