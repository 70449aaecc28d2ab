"""slime and miles: their Sample, one at a time and by groups."""

import asyncio
from argparse import Namespace
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import pytest

from reward_service.client import RequestFailed
from reward_service.client.trainers.slime import custom_rm, custom_rm_dict, group_rm, group_rm_dict
from tests.trainers.conftest import ANSWERS, GIRAFFE, Reward

RENDERED = f"<|im_start|>user\n{GIRAFFE}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATED, PLAIN = Namespace(apply_chat_template=True), Namespace(apply_chat_template=False)


class Status(Enum):
    """The states of slime's samples that a reward function meets."""

    COMPLETED = "completed"
    TRUNCATED = "truncated"


@dataclass
class Sample:
    """slime's, as far as a reward function reads it."""

    prompt: str | list[dict[str, str]] | Any
    response: str
    label: str | None = "5.5"
    status: Status = Status.COMPLETED
    metadata: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("args", "prompt", "end"),
    [
        (TEMPLATED, RENDERED, "<|im_end|>"),
        (TEMPLATED, RENDERED, ""),
        (PLAIN, GIRAFFE, ""),
        (PLAIN, [{"role": "user", "content": GIRAFFE}], ""),
        (PLAIN, np.array([{"role": "user", "content": GIRAFFE, "weight": 1}]), ""),
    ],
)
async def test_each_form_of_a_prompt_gets_the_number_of_its_messages(
    args: Namespace, prompt: Any, end: str, service_url: str, reward: Reward
) -> None:
    calls = (custom_rm(args, Sample(prompt, answer + end)) for answer in ANSWERS)
    assert await asyncio.gather(*calls) == [reward(GIRAFFE, answer) for answer in ANSWERS]


async def test_a_truncated_sample_is_unfinished(service_url: str, reward: Reward) -> None:
    cut = Sample(RENDERED, "About", status=Status.TRUNCATED)
    assert await custom_rm(TEMPLATED, cut) == reward(GIRAFFE, "About", finish_reason="length")


async def test_a_group_is_scored_together_in_its_order(service_url: str, reward: Reward) -> None:
    group = [Sample(GIRAFFE, answer) for answer in ANSWERS]
    expected = [reward(GIRAFFE, answer) for answer in ANSWERS]
    assert await group_rm(PLAIN, group) == expected
    assert [one["reward"] for one in await group_rm_dict(PLAIN, group)] == expected


async def test_a_dict_has_the_reward_under_its_key_and_the_terms(service_url: str) -> None:
    told = await custom_rm_dict(PLAIN, Sample(GIRAFFE, "Very."))
    assert list(told) == ["reward", "helpful/raw", "helpful/transformed", "harmless/raw", "harmless/transformed"]


async def test_the_option_for_the_url_names_the_service(live_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWARD_SERVICE_URL", raising=False)
    monkeypatch.setenv("REWARD_SERVICE_OBJECTIVE", "of-nobody")
    with pytest.raises(RequestFailed, match="of-nobody"):
        await custom_rm(Namespace(rm_url=live_service.url), Sample(GIRAFFE, "Very."))
