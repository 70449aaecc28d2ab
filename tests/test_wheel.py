"""The wheel, built from the tree and used from outside it."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "service" / "reward_service"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_its_types_and_the_demo(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "py.typed",
        "cli/main.py",
        "demo/conversations.jsonl",
        "demo/models/helpful/model.safetensors",
        "engine/parity/golden.json",
    ):
        assert f"reward_service/{name}" in names
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]


def test_a_base_install_is_the_client_and_nothing_heavy(wheel: Path, tmp_path: Path) -> None:
    """Needs a package registry for httpx, pydantic and numpy, as any install does."""
    venv.create(tmp_path / "base", with_pip=True)
    python = tmp_path / "base" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    trainers = sorted(path.stem for path in (SOURCE / "client" / "trainers").glob("[a-z]*.py"))
    script = (
        f"from reward_service.client.trainers import {', '.join(trainers)}\n"
        "import importlib.util as u, reward_service.client as c; print(c.__file__, [m for m in %r if u.find_spec(m)])"
    )
    heavy = ("torch", "transformers", "fastapi", "redis", "typer")
    output = run(python, "-c", script % (heavy,), cwd=tmp_path)
    assert output.strip().endswith("[]")
    assert str(tmp_path) in output


def test_the_command_of_an_installed_wheel_works_outside_the_tree(wheel: Path, tmp_path: Path) -> None:
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        tmp_path / "site",
        wheel,
        cwd=tmp_path,
    )
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import reward_service; assert 'site' in reward_service.__file__, reward_service.__file__\n"
        "sys.argv = ['reward-service', 'demo', '--once']\n"
        "from reward_service.cli import main; main()\n"
    )
    assert "helpful-and-harmless" in run(sys.executable, "-c", script, cwd=tmp_path)
