"""The architecture, as a test: imports point strictly down, and heavy packages stay in their rooms."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "service" / "reward_service"
# From the top; names on one row do not import each other.
LAYERS = [
    {"cli"},
    {"api"},
    {"jobs", "training"},
    {"service", "demo"},
    {"scoring", "reloading", "submissions"},
    {"objectives"},
    {"catalog", "baselines"},
    {"engine"},
    {"client", "stores"},
    {"advantages"},
    {"schemas", "config", "telemetry"},
    {"problems", "reparsing", "rewards"},
    {"errors"},
]
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
HEAVY = {
    "torch": {"engine", "training", "client"},  # the client in functions that a trainer with torch calls
    "transformers": {"engine", "training"},
    "tokenizers": {"engine", "training"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "uvicorn": {"cli"},
    "typer": {"cli"},
    "pyarrow": {"jobs"},
    "fsspec": {"jobs"},
    "rich": {"cli"},
    "prometheus_client": {"telemetry"},
    "opentelemetry": {"telemetry"},
    "sqlite3": {"stores", "jobs"},
    "redis": {"stores"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield str(node.module)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_strictly_down(path: Path) -> None:
    here = room(path)
    assert here in ROW, f"{here} has no row in LAYERS"
    for name in imports(path):
        if name.startswith("reward_service."):
            there = name.split(".")[1]
            assert there == here or ROW[there] > ROW[here], f"{here} imports {there}, which does not stand lower"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_in_their_rooms_only(path: Path) -> None:
    for name in imports(path):
        rooms = HEAVY.get(name.split(".")[0])
        assert rooms is None or room(path) in rooms, f"{path} imports {name}"


def test_the_client_is_imported_without_torch_fastapi_or_redis() -> None:
    script = (
        "import sys, reward_service.client\n"
        "heavy = {'torch', 'transformers', 'fastapi', 'starlette', 'redis', 'typer', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_are_short_enough_to_know() -> None:
    long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}
