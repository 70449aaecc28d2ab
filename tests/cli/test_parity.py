"""`reward-service check --parity`, as a person types it."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.engine.models import build
from tests.process import command, demo_toml


def test_it_shows_the_numbers_of_every_model(tmp_path: Path) -> None:
    done = command("check", "--parity", "-c", demo_toml(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.startswith("h")}
    for name in ("helpful", "harmless"):
        _, compared, conversations, difference, tolerance, verdict = rows[name]
        assert (compared, conversations, verdict) == ("Transformers", "26", "served")
        assert float(difference) <= float(tolerance) < 0.01


def test_a_refused_model_is_named_with_the_reason_and_exit_1(tmp_path: Path) -> None:
    broken = build("bos", tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"][:] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    good = build("bos", tmp_path / "good")
    file = tmp_path / "service.toml"
    file.write_text(
        "".join(f'[[models]]\nname = "{one.name}"\nsource = "{one}"\ndevice = "cpu"\n' for one in (broken, good))
    )
    done = command("check", "--parity", "-c", file)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("broken", "good"))] == ["refused", "served"]
    assert "model 'broken' fails the parity check: the conversation 'giraffe-good' has no score" in done.stdout
    assert "Traceback" not in done.stderr
