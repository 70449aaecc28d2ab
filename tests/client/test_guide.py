"""docs/client.md says what is: its Python runs, and its tables hold every option and exception."""

import ast
import inspect
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from reward_service import client
from reward_service.client import calls, settings
from reward_service.client.retrying import LONGEST_BACKOFF_S, RETRIED
from reward_service.client.settings import Settings
from tests.process import ServiceProcess, demo_toml

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    with ServiceProcess(demo_toml(tmp_path)) as service:
        port = service.url.rpartition(":")[2]
        for name, url in (
            ("http://127.0.0.1:8000", service.url),
            ("http://reward-0:8000", service.url),
            ("http://reward-1:8000", f"http://localhost:{port}"),
        ):
            code = code.replace(name, url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    first, helpful, harmless, step, lenient = done.stdout.splitlines()
    assert re.fullmatch(r"\[-\d\.\d+\]", first)
    assert helpful.startswith("helpful ")
    assert harmless.startswith("harmless ")
    assert re.fullmatch(r"\[-\d\.\d+, -\d\.\d+\]", step)
    assert re.fullmatch(r"\[-\d\.\d+, None\] invalid_request", lenient)


def test_every_option_stands_in_the_table_with_its_default_and_its_own_description() -> None:
    (kind,) = [one for one in ast.parse(inspect.getsource(settings)).body if getattr(one, "name", "") == "Settings"]
    assert isinstance(kind, ast.ClassDef)
    described = {
        field.target.id: str(doc.value.value)
        for field, doc in pairwise(kind.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
    }
    defaults = Settings("http://a")
    assert list(described) == list(Settings.__dataclass_fields__)
    for name, description in described.items():
        default = "required" if name == "base_url" else f"`{getattr(defaults, name)!r}`".replace("'", '"')
        assert f"| `{name}` | {default} | {description} |" in PAGE
    assert set(settings.Options.__annotations__) == set(described) - {"base_url"}


def test_every_exception_call_and_status_stands_on_the_page() -> None:
    exceptions = [name for name in client.__all__ if issubclass(getattr(client, name), Exception)]
    functions = inspect.getmembers(calls, inspect.isfunction)
    described = [name for name, call in functions if call.__module__ == calls.__name__ and not name.startswith("_")]
    for name in [*exceptions, *described]:
        assert f"`{name}`" in PAGE, name
    assert f"| {', '.join(map(str, sorted(RETRIED)))} | tries again" in PAGE
    assert f"to {LONGEST_BACKOFF_S:.0f} s" in PAGE
