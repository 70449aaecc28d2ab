"""LLaMA-Factory's own PPO, told nothing but a URL."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real_trainers.conftest import OBJECTIVE, Reward, with_key
from tests.real_trainers.recording import Exchange, Recorder
from tests.real_trainers.trainers import needs

pytestmark = needs("llamafactory")

PROMPTS = ["How tall is a giraffe? 🦒", "Name a colour.", "Why is the sky blue?", "Say <b>hi</b>.\n\nTwice."]
RENDERED = {f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n": prompt for prompt in PROMPTS}
END = "<|im_end|>"
STEPS, SAMPLES = 2, 4


@pytest.fixture
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check of the versions: those that PPO needs together are not those that it declares."""
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")


def configuration(folder: Path, reward_model: str) -> Path:
    """Two steps of PPO with a policy made from a configuration."""
    from tests.trainers.policy import save_policy

    rows = [{"instruction": prompt, "input": "", "output": ""} for prompt in PROMPTS]
    (folder / "prompts.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"prompts": {"file_name": "prompts.json"}}))
    chosen: dict[str, Any] = {
        "stage": "ppo",
        "do_train": True,
        "finetuning_type": "full",
        "model_name_or_path": str(save_policy(folder / "policy")),
        "template": "chatml",
        "reward_model_type": "api",
        "reward_model": reward_model,
        "dataset": "prompts",
        "dataset_dir": str(folder),
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": SAMPLES // 2,
        "max_steps": STEPS,
        "logging_steps": 1,
        "learning_rate": 0.00001,
        "max_new_tokens": 24,
        "top_k": 0,
        "top_p": 1.0,
        "use_cpu": True,
        "report_to": "none",
        "seed": 7,
    }
    file = folder / "ppo.json"
    file.write_text(json.dumps(chosen))
    return file


def train(file: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "train", str(file)]
    return subprocess.run(
        command,
        cwd=file.parent,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=500,
    )


def meant(text: str) -> tuple[str, str, str]:
    """The prompt of the data set, what the policy wrote to it, and whether it came to an end."""
    before = next(rendered for rendered in RENDERED if text.startswith(rendered))
    response = text.removeprefix(before)
    return RENDERED[before], response.removesuffix(END), "stop" if response.endswith(END) else "length"


def scored(exchanges: list[Exchange]) -> Iterator[tuple[str, float]]:
    for exchange in exchanges:
        yield from zip(exchange.request["messages"], exchange.answer["scores"], strict=True)


@pytest.mark.usefixtures("quiet_environment")
def test_ppo_trains_on_what_the_objective_says_of_its_conversations(
    recorder: Recorder, reward: Reward, tmp_path: Path
) -> None:
    done = train(configuration(tmp_path, f"{with_key(recorder.url)}/llamafactory/{OBJECTIVE}"))
    assert done.returncode == 0, done.stderr
    rewards = []
    for text, score in scored(recorder.exchanges):
        prompt, response, finish_reason = meant(text)
        rewards.append(score)
        assert score == pytest.approx(reward(prompt, response, finish_reason=finish_reason), abs=1e-9)
    steps = [sum(rewards[at : at + SAMPLES]) / SAMPLES for at in range(0, len(rewards), SAMPLES)]
    log = [json.loads(line) for line in (tmp_path / "out" / "trainer_log.jsonl").read_text().splitlines()]
    assert [step["reward"] for step in log] == pytest.approx(steps, abs=1e-4)
    assert len(log) == STEPS


@pytest.mark.usefixtures("quiet_environment")
def test_its_client_stops_at_an_error_instead_of_training_on_one(recorder: Recorder) -> None:
    from llamafactory.train.ppo.ppo_utils import get_rewards_from_server

    with pytest.raises(KeyError, match="scores"):
        get_rewards_from_server(
            f"{with_key(recorder.url)}/llamafactory/neither", [f"{next(iter(RENDERED))}Hello.{END}"]
        )
    assert [exchange.status for exchange in recorder.exchanges] == [404]
