"""verl: called as its reward managers call, with what its agent loop knows."""

import asyncio
import importlib
import inspect
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reward_service.client import Unavailable
from reward_service.client.trainers.verl import ServiceRewardManager, compute_score, compute_score_sync
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": GIRAFFE}]
KEYS = ["score", "helpful/raw", "helpful/transformed", "harmless/raw", "harmless/transformed"]


def loaded(name: str, **reward_kwargs: Any) -> Any:
    """As `get_custom_reward_fn` does for path=pkg://..., name=..., reward_kwargs=..."""
    function = getattr(importlib.import_module("reward_service.client.trainers.verl"), name)
    if inspect.iscoroutinefunction(function):

        async def awaited(**kwargs: Any) -> Any:
            return await function(**{**kwargs, **reward_kwargs})

        return awaited
    return partial(function, **reward_kwargs)


def given(response: str = ANSWERS[0], **extra_info: Any) -> dict[str, Any]:
    """As `NaiveRewardManager.run_single` gives it."""
    known = {"index": np.int64(3), "num_turns": 2, "rollout_reward_scores": {}, "raw_prompt": np.array(MESSAGES)}
    return {
        "data_source": "org/data",
        "solution_str": response,
        "ground_truth": np.array(["5.5"], dtype=object),
        "extra_info": {**known, **extra_info},
    }


async def test_the_function_gives_the_services_number_and_the_same_keys_for_every_sample(
    service_url: str, reward: Reward
) -> None:
    score = loaded("compute_score", url=service_url, objective="both")
    told = await asyncio.gather(*(score(**given(answer)) for answer in ANSWERS))
    assert [one["score"] for one in told] == [reward(MESSAGES, answer) for answer in ANSWERS]
    assert [list(one) for one in told] == [KEYS] * len(ANSWERS)
    assert all(isinstance(number, float) for one in told for number in one.values())


def test_the_managers_that_take_no_async_function_have_one_that_is_not(service_url: str, reward: Reward) -> None:
    assert inspect.iscoroutinefunction(compute_score)
    assert not inspect.iscoroutinefunction(compute_score_sync)
    score = loaded("compute_score_sync", url=service_url)
    extra = {"reward_router_address": "10.0.0.1:8000", "reward_model_tokenizer": object()}
    assert score(**given(), **extra)["score"] == reward(MESSAGES, ANSWERS[0])


async def test_the_prompt_may_stand_under_another_name(service_url: str, reward: Reward) -> None:
    score = loaded("compute_score", prompt_key="question")
    assert (await score(**given(question=GIRAFFE)))["score"] == reward(GIRAFFE, ANSWERS[0])


async def test_without_a_prompt_the_error_says_where_it_could_stand(service_url: str) -> None:
    with pytest.raises(ValueError, match=r"no prompt under 'raw_prompt' or 'prompt', it has \['index'.*prompt_key"):
        await compute_score("d", "r", "t", {"index": 1})


async def test_an_outage_is_an_exception_and_none_is_refused() -> None:
    with pytest.raises(Unavailable):
        await compute_score(**given(), url=NOBODY, deadline_s=0.3)
    with pytest.raises(ValueError, match="on_failure: 'none', but verl has no place"):
        await compute_score(**given(), url=NOBODY, on_failure="none")


@dataclass
class Config:
    """verl's configuration, as far as a reward manager reads it."""

    reward: dict[str, Any]
    response_length: int = 512

    @property
    def actor_rollout_ref(self) -> SimpleNamespace:
        return SimpleNamespace(rollout=SimpleNamespace(response_length=self.response_length))


@dataclass
class Row:
    """An item of a DataProto."""

    batch: dict[str, torch.Tensor]
    non_tensor_batch: dict[str, Any]


class Letters:
    """A tokenizer of letters; a full stop ends a response."""

    eos_token_id = ord(".")

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return "".join(chr(one) for one in ids.tolist())


def rows(*responses: str) -> list[Row]:
    """A DataProto of sequences whose padding is on both sides, as verl's."""
    width = max(map(len, responses)) + 3
    tensors = [
        {
            "responses": torch.tensor([ord(letter) for letter in text] + [0] * (width - len(text))),
            "attention_mask": torch.tensor([0, 1, 1] + [1] * len(text) + [0] * (width - len(text))),
        }
        for text in responses
    ]
    known = {"data_source": "d", "reward_model": {"ground_truth": "5.5"}, "raw_prompt": np.array(MESSAGES)}
    return [Row(one, known) for one in tensors]


async def test_the_manager_scores_the_last_sequence_with_its_prompt(service_url: str, reward: Reward) -> None:
    manager = ServiceRewardManager(
        Config({"reward_kwargs": {"url": service_url}}),
        Letters(),
        compute_score,
        reward_router_address=None,
        reward_model_tokenizer=None,
    )
    told = await manager.run_single(rows(ANSWERS[1], ANSWERS[0]))
    assert told["reward_score"] == reward(MESSAGES, ANSWERS[0])
    assert list(told["reward_extra_info"]) == KEYS


@pytest.mark.parametrize(("response", "finish"), [("It is about five m", "length"), ("It is tall, 5.5 m.", "stop")])
async def test_the_manager_knows_a_response_that_fills_the_limit_without_an_end(
    service_url: str, reward: Reward, response: str, finish: str
) -> None:
    manager = ServiceRewardManager(Config({"reward_kwargs": {"url": service_url}}, len(response)), Letters())
    told = await manager.run_single(rows(response))
    assert told["reward_score"] == reward(MESSAGES, response, finish_reason=finish)
    assert reward(MESSAGES, response, finish_reason="length") != reward(MESSAGES, response)
