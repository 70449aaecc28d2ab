"""verl's own reward loop: the worker that its agent loop asks for the reward of each rollout."""

from pathlib import Path
from typing import Any

import pytest

from reward_service.demo import FOLDER
from tests.process import ServiceProcess
from tests.real_trainers.conftest import KEY, OBJECTIVE, Reward, with_key
from tests.real_trainers.trainers import needs

pytestmark = needs("verl")

MODULE = "pkg://reward_service.client.trainers.verl"
FUNCTION = [f"reward.custom_reward_function.path={MODULE}", "reward.custom_reward_function.name=compute_score"]
OF_FUNCTION = "+reward.custom_reward_function.reward_kwargs"
SYNC_FUNCTION = [FUNCTION[0], "reward.custom_reward_function.name=compute_score_sync"]
MANAGER = [
    "reward.reward_manager.source=importlib",
    "reward.reward_manager.name=ServiceRewardManager",
    f"reward.reward_manager.module.path={MODULE}",
]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How tall is a giraffe? 🦒"}]
RESPONSES = ["About five metres. 🦒", "<think>\nTall.\n</think>\n\nFive metres."]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy's folder; only its tokenizer is used."""
    from tests.trainers.policy import byte_tokenizer

    folder = tmp_path_factory.mktemp("policy")
    byte_tokenizer().save_pretrained(folder)
    return folder


def worker(policy: Path, *overrides: str, router: str | None = None) -> Any:
    """What `python -m verl.trainer.main_ppo OVERRIDES` starts to compute rewards, without Ray around it."""
    from hydra import compose, initialize_config_module
    from verl.experimental.reward_loop import RewardLoopWorker, migrate_legacy_reward_impl

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", [f"actor_rollout_ref.model.path={policy}", *overrides])
    return RewardLoopWorker(migrate_legacy_reward_impl(config), router)


def rollout(tokenizer: Any, response: str, *, is_cut: bool = False) -> Any:
    """A rollout as verl's agent loop hands it to the worker."""
    import numpy as np
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    prompts = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    end = [] if is_cut else [tokenizer.eos_token_id]
    written = tokenizer(response, add_special_tokens=False)["input_ids"] + end
    tensors = {"prompts": [prompts], "responses": [written], "attention_mask": [[1] * (len(prompts) + len(written))]}
    row = {"data_source": "zoo", "reward_model": {"ground_truth": "5 m"}, "extra_info": {"index": 0}}
    fields = {"tool_extra_fields": {"raw_prompt": MESSAGES}, "__num_turns__": 2}
    return DataProto(
        batch=TensorDict({name: torch.tensor(values) for name, values in tensors.items()}, batch_size=1),
        non_tensor_batch={
            "raw_prompt": np.array([MESSAGES]),
            **{name: np.array([value], dtype=object) for name, value in {**row, **fields}.items()},
        },
    )


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("overrides", [FUNCTION, SYNC_FUNCTION, MANAGER], ids=["function", "sync function", "manager"])
async def test_each_form_gives_the_reward_of_the_conversation(
    service_url: str, reward: Reward, policy: Path, overrides: list[str], response: str
) -> None:
    of_verl = worker(policy, *overrides)
    result = await of_verl.compute_score(rollout(of_verl.input_tokenizer, response))
    assert result["reward_score"] == pytest.approx(reward(MESSAGES, response), abs=1e-9)
    assert {"helpful/raw", "harmless/raw"} <= set(result["reward_extra_info"])


async def test_the_manager_says_that_a_response_was_cut(service_url: str, reward: Reward, policy: Path) -> None:
    limit = f"actor_rollout_ref.rollout.response_length={len(RESPONSES[0].encode())}"
    of_verl = worker(policy, *MANAGER, limit)
    result = await of_verl.compute_score(rollout(of_verl.input_tokenizer, RESPONSES[0], is_cut=True))
    cut = reward(MESSAGES, RESPONSES[0], finish_reason="length")
    assert result["reward_score"] == pytest.approx(cut, abs=1e-9)
    assert cut != reward(MESSAGES, RESPONSES[0])


@pytest.mark.parametrize(
    ("overrides", "arguments"),
    [(FUNCTION, OF_FUNCTION), (MANAGER, "+reward.reward_kwargs")],
    ids=["function", "manager"],
)
async def test_the_command_line_can_name_the_service(
    service: ServiceProcess, reward: Reward, policy: Path, overrides: list[str], arguments: str
) -> None:
    given = {"url": service.url, "objective": OBJECTIVE, "api_key": KEY}
    of_verl = worker(policy, *overrides, *(f"{arguments}.{name}={value}" for name, value in given.items()))
    result = await of_verl.compute_score(rollout(of_verl.input_tokenizer, RESPONSES[0]))
    assert result["reward_score"] == pytest.approx(reward(MESSAGES, RESPONSES[0]), abs=1e-9)


async def test_its_own_client_of_a_reward_model_gets_the_number_too(
    service: ServiceProcess, reward: Reward, policy: Path
) -> None:
    model = [f"reward.reward_model.model_path={FOLDER / 'models' / 'helpful'}", "reward.reward_model.rollout.name=vllm"]
    router = f"{with_key(service.url).removeprefix('http://')}/vllm/{OBJECTIVE}"
    of_verl = worker(policy, "reward.reward_model.enable=True", *model, router=router)
    result = await of_verl.compute_score(rollout(of_verl.input_tokenizer, RESPONSES[0]))
    assert result["reward_score"] == pytest.approx(reward(MESSAGES, RESPONSES[0]), abs=1e-9)


async def test_an_unknown_objective_stops_the_worker(service_url: str, policy: Path) -> None:
    from reward_service.client import RequestFailed

    of_verl = worker(policy, *FUNCTION, f"{OF_FUNCTION}.objective=neither")
    with pytest.raises(RequestFailed, match="neither"):
        await of_verl.compute_score(rollout(of_verl.input_tokenizer, RESPONSES[0]))
