"""The launch files of examples/ say what the trainers' own option parsers understand."""

import argparse
import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real_trainers.trainers import needs

EXAMPLES = Path(__file__).parents[2] / "examples"
REPLICAS = "http://reward-0:8000,http://reward-1:8000"


def arguments(script: str, folder: Path, **environment: str) -> list[str]:
    """What a launch file hands to Python, and nothing is launched."""
    told = folder / "told.json"
    stand_in = folder / "python"
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(told)!r}, 'w'))\n")
    stand_in.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([EXAMPLES / script], env={"PATH": path, **environment}, check=True, timeout=400)
    found: list[str] = json.loads(told.read_text())
    return found


def parser_of_openrlhf() -> Any:
    """The parser that `openrlhf.cli.train_ppo_ray` builds; the module itself cannot be imported without vLLM."""
    spec = importlib.util.find_spec("openrlhf.cli.train_ppo_ray")
    assert spec is not None
    assert spec.origin is not None
    body = ast.parse(Path(spec.origin).read_text()).body[-1]
    assert isinstance(body, ast.If)
    built = [one for one in body.body if not ast.unparse(one).startswith(("args", "from"))]
    until = next(i for i, one in enumerate(built) if "args." in ast.unparse(one))
    names: dict[str, Any] = {"argparse": argparse, "datetime": __import__("datetime").datetime}
    exec(compile(ast.Module(built[:until], []), spec.origin, "exec"), names)
    return names["parser"]


@pytest.mark.skipif(importlib.util.find_spec("openrlhf") is None, reason="openrlhf is not installed here")
def test_openrlhf_knows_every_option(tmp_path: Path) -> None:
    url = "http://any:KEY@reward-0:8000/openrlhf/both/get_reward"
    module, *options = arguments("openrlhf_grpo.sh", tmp_path, REWARD_URL=url, PROMPTS="prompts.jsonl")[1:]
    args = parser_of_openrlhf().parse_args(options)
    assert module == "openrlhf.cli.train_ppo_ray"
    assert getattr(args, "reward.remote_url") == url
    assert getattr(args, "algo.advantage.estimator") == "group_norm"


@needs("verl")
def test_verl_knows_every_override(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_module

    given = {"REWARD_SERVICE_URL": REPLICAS, "TRAIN": "train.parquet", "VALIDATION": "test.parquet"}
    module, *overrides = arguments("verl_grpo.sh", tmp_path, **given)[1:]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides)
    assert module == "verl.trainer.main_ppo"
    assert config.reward.reward_kwargs == {"url": REPLICAS, "objective": "helpful-and-harmless"}
    assert config.reward.reward_manager.name == "ServiceRewardManager"
