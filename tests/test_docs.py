"""The docs say what is: every field, error, metric, route and command has an entry, and code blocks run."""

import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from reward_service import errors
from reward_service.api.app import routed_app
from reward_service.cli.main import app as command_line
from reward_service.config import parse_config, schema
from reward_service.config.section import Section
from reward_service.rewards.aggregation import AGGREGATIONS
from reward_service.rewards.transforms import TRANSFORMS
from reward_service.schemas import ScoreRequest
from reward_service.telemetry import Metrics

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(name), re.DOTALL)


def sections() -> list[type[BaseModel]]:
    every = [one for one in vars(schema).values() if isinstance(one, type) and issubclass(one, Section)]
    return [one for one in every if one not in (Section, schema.Config, schema.ResponseBaseline)]


@pytest.mark.parametrize("section", sections(), ids=lambda one: one.__name__)
def test_every_configuration_key_stands_in_the_docs_with_its_own_description(section: type[BaseModel]) -> None:
    page = text("configuration.md")
    for name, field in section.model_fields.items():
        row = rf"^\| `{name}` \| [^|]+ \| {re.escape(field.description or '?')} \|$"
        assert re.search(row, page, re.MULTILINE), f"{section.__name__}.{name}: {field.description}"


def test_every_transform_and_aggregation_stands_in_the_docs_with_its_scale() -> None:
    page = text("configuration.md")
    for name, transform in TRANSFORMS.items():
        assert re.search(rf"^\| `{name}` \|.*\| {transform.scale} \|", page, re.MULTILINE), name
    for name in AGGREGATIONS:
        assert re.search(rf"^\| `{name}` \|", page, re.MULTILINE), name


def test_the_configuration_of_the_docs_is_valid() -> None:
    for block in blocks("configuration.md", "toml"):
        parse_config(tomllib.loads(block), {})


def test_the_request_of_the_docs_is_valid() -> None:
    request = ScoreRequest.model_validate(json.loads(blocks("api.md", "json")[0]))
    assert [type(one).__name__ for one in request.conversations] == ["Conversation", "Conversation"]


def error_kinds(kind: type[errors.ServiceError] = errors.ServiceError) -> list[type[errors.ServiceError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in error_kinds(child))]


def test_every_error_code_stands_in_the_docs_with_its_status() -> None:
    page = text("api.md")
    for kind in error_kinds():
        assert f"| `{kind.code}` | {kind.status} |" in page, kind


def test_every_route_stands_in_the_docs() -> None:
    page = text("api.md")
    for path, operations in routed_app().openapi()["paths"].items():
        for method in operations:
            assert re.search(rf"{method.upper()}[A-Z, ]*`{re.escape(path)}|`, `{re.escape(path)}", page), (method, path)


def test_every_metric_stands_in_the_docs() -> None:
    found = re.findall(r"^# TYPE (\w+) (\w+)", Metrics().exposition().decode(), re.MULTILINE)
    names = {name for name, _ in found if not name.endswith("_created")}
    page = text("api.md")
    assert {name for name in names if f"| `{name}` |" not in page} == set()


def test_every_command_stands_in_the_readme() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [command.callback.__name__ for command in command_line.registered_commands if command.callback]
    for name in [*commands, "baseline build", "baseline coverage"]:
        assert f"`reward-service {name}" in page, name


def test_every_method_of_the_papers_page_has_its_function_and_its_test() -> None:
    rows = re.findall(r"\| `([\w.]+)` \| `([\w/.]+)`: `(\w+)` \|", text("papers.md"))
    assert len(rows) > 20
    for function, file, test in rows:
        module, name = function.rsplit(".", 1)
        assert hasattr(importlib.import_module(f"reward_service.{module}"), name), function
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def test_every_transform_and_aggregation_stands_on_the_papers_page() -> None:
    names = {name.rsplit(".", 1)[1] for name in re.findall(r"`(rewards\.[\w.]+)`", text("papers.md"))}
    assert set(TRANSFORMS) <= names


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md")]
    for page in pages:
        links: list[Any] = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        for link in links:
            assert (page.parent / link).exists(), f"{page.name}: {link}"
