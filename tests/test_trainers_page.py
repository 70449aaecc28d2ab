"""docs/trainers.md: every dialect and callable is there, its blocks parse, and what they name exists."""

import ast
import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from reward_service.api.app import routed_app
from reward_service.client import trainers
from tests.test_docs import ROOT, blocks, text

PAGE = text("trainers.md")
FOLDER = Path(trainers.__file__).parent
OBJECTIVE = "helpful-and-harmless"
DIALECTS = [
    path
    for path, operations in routed_app().openapi()["paths"].items()
    if "{objective}" in path and any("trainers" in one.get("tags", []) for one in operations.values())
]


def callables() -> list[str]:
    """The modules of client/trainers that no other one imports: one for each trainer."""
    sources = {file.stem: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.py")}
    return [name for name in sources if name != "__init__" and f"trainers.{name} import" not in _others(sources, name)]


def _others(sources: dict[str, str], name: str) -> str:
    return "".join(re.sub(r'^""".*?"""', "", source, flags=re.DOTALL) for one, source in sources.items() if one != name)


@pytest.mark.parametrize("path", DIALECTS)
def test_every_dialect_has_its_block(path: str) -> None:
    prefix = path.split("{objective}")[0] + OBJECTIVE
    assert f"reward-0:8000{prefix}" in PAGE


@pytest.mark.parametrize("name", callables())
def test_every_callable_has_its_block(name: str) -> None:
    code = "".join(blocks("trainers.md", r"(?:python|bash|toml)"))
    assert f"reward_service.client.trainers.{name}" in code


def test_every_url_leads_to_a_route() -> None:
    found = set(re.findall(r"reward-0:8000(/\w[\w./-]*)", PAGE))
    routes = [path.replace("{objective}", OBJECTIVE) for path in DIALECTS]
    assert len(found) > 5
    assert {url for url in found if not any(f"{route}/".startswith(f"{url}/") for route in routes)} == set()


def test_every_name_of_the_client_exists() -> None:
    named = re.findall(r"reward_service\.client\.trainers\.(\w+)[.:](\w+)", PAGE)
    for block in blocks("trainers.md", "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(trainers.__name__):
                named += [(str(node.module).rpartition(".")[2], alias.name) for alias in node.names]
    named += [("verl", name) for name in re.findall(r"(?:reward_manager|function)\.name=(\w+)", PAGE)]
    assert len(named) > 10
    for module, name in named:
        assert hasattr(importlib.import_module(f"{trainers.__name__}.{module}"), name), f"{module}.{name}"


def test_every_block_parses() -> None:
    for block in blocks("trainers.md", "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for block in blocks("trainers.md", "toml"):
        assert tomllib.loads(block)
    for body in re.findall(r"-d '(.*?)'", PAGE):
        assert json.loads(body)


def test_the_versions_are_those_that_the_trainers_environments_have() -> None:
    pins = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "constraints-trainers").glob("*.txt"))
    for package, trainer in (
        ("openrlhf", "OpenRLHF"),
        ("verl", "verl"),
        ("llamafactory", "LLaMA-Factory"),
        ("ms_swift", "ms-swift"),
        ("verifiers", "verifiers, prime-rl"),
    ):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| [{trainer}]"))
        for version in re.findall(rf"^{package}==(\S+)$", pins, re.MULTILINE):
            assert version in row, f"{trainer}: {version}"


def test_the_launch_files_are_shell() -> None:
    for script in (ROOT / "examples").glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True, timeout=20)
        assert script.stat().st_mode & 0o100
