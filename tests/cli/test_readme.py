"""The Python of the README and of the docs runs, against a real service."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import ServiceProcess, demo_toml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_python_of_a_page_runs_against_a_service(page: str, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL))
    with ServiceProcess(demo_toml(tmp_path)) as service:
        code = code.replace("http://127.0.0.1:8000", service.url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert re.search(r"-\d+\.\d+", done.stdout)
