"""OpenRLHF: the file of a reward function, loaded and called as its executor does."""

import asyncio
import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from reward_service.client import Unavailable
from reward_service.client.trainers.openrlhf import RewardFunc
from reward_service.errors import ReparseFailed
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward

PROMPT = f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{GIRAFFE}<|im_end|>\n<|im_start|>assistant\n"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": GIRAFFE}]
END = "<|im_end|>"


def loaded(folder: Path) -> Any:
    """As `SingleTurnAgentExecutor` loads the file that --reward.remote_url names."""
    file = folder / "reward.py"
    file.write_text("from reward_service.client.trainers.openrlhf import reward_func\n")
    spec = importlib.util.spec_from_file_location("reward_func", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reward_func


async def test_one_query_per_call_gets_the_number_of_its_messages(
    tmp_path: Path, service_url: str, reward: Reward
) -> None:
    function = loaded(tmp_path)
    calls = [asyncio.to_thread(function, [PROMPT + answer + END], [PROMPT], ["5.5"]) for answer in ANSWERS]
    for answer, told in zip(ANSWERS, await asyncio.gather(*calls), strict=True):
        assert torch.tensor([told["rewards"]]).item() == pytest.approx(reward(MESSAGES, answer), abs=1e-6)
        assert told["scores"].item() == pytest.approx(told["rewards"].exp().item())
        logged = {name: torch.tensor([value.flatten()[0].item()]) for name, value in told["extra_logs"].items()}
        assert list(logged) == ["helpful/raw", "helpful/transformed", "harmless/raw", "harmless/transformed"]


def test_a_batch_gives_tensors_in_its_order(service_url: str, reward: Reward) -> None:
    told = RewardFunc(url=service_url)([PROMPT + answer + END for answer in ANSWERS], [PROMPT] * 4, [None] * 4)
    assert told["rewards"].tolist() == pytest.approx([reward(MESSAGES, answer) for answer in ANSWERS], abs=1e-6)


def test_a_query_without_its_end_was_cut(service_url: str, reward: Reward) -> None:
    told = RewardFunc(url=service_url)([PROMPT + "About"], [PROMPT], [None])
    assert told["rewards"].item() == pytest.approx(reward(MESSAGES, "About", finish_reason="length"), abs=1e-6)


def test_a_failure_is_logged_as_an_error_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(Unavailable):
        RewardFunc(url=NOBODY, deadline_s=0.3)([PROMPT + END], [PROMPT], [None])
    assert "no reward for 1 queries" in caplog.text
    with pytest.raises(ReparseFailed):
        RewardFunc(url=NOBODY)(["raffe?" + END], [PROMPT], [None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_failure": "none"}, "OpenRLHF has no place for a sample without a reward"),
        ({"input": "text"}, "input: 'text'; valid: reparse, raw, messages"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardFunc(**options)


def test_rendered_text_can_go_as_it_is(service_url: str, client: Any) -> None:
    told = RewardFunc(url=service_url, input="raw")([PROMPT + "Very." + END], [PROMPT], [None])
    expected = client.score([{"text": PROMPT + "Very." + END}]).rewards[0]
    assert told["rewards"].item() == pytest.approx(expected, abs=1e-6)
    plain = RewardFunc(url=service_url, input="messages")([GIRAFFE + "Very."], [GIRAFFE], [None])
    assert plain["rewards"].item() == pytest.approx(
        client.score([{"prompt": GIRAFFE, "response": "Very."}]).rewards[0], abs=1e-6
    )
