"""NeMo-RL: its environment, made and stepped as its registry and rollouts do.

NeMo-RL and Ray are not here: the modules below have what their sources say of the four names that are used.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from reward_service.client import Client, Unavailable
from reward_service.client.trainers import nemo_rl
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward

RENDERED = f"<|im_start|>user\n{GIRAFFE}<|im_end|>\n<|im_start|>assistant\n"


class EnvironmentReturn(NamedTuple):
    """NeMo-RL's."""

    observations: Any
    metadata: Any
    next_stop_strings: Any
    rewards: Any
    terminateds: Any
    answers: Any = None


@pytest.fixture(autouse=True)
def trainer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The registries of NeMo-RL after the imports, empty."""
    actors: dict[str, str] = {}
    environments: dict[str, str] = {}
    modules: dict[str, dict[str, Any]] = {
        "nemo_rl.environments.interfaces": {"EnvironmentReturn": EnvironmentReturn},
        "nemo_rl.distributed.virtual_cluster": {"PY_EXECUTABLES": SimpleNamespace(SYSTEM="python")},
        "nemo_rl.distributed.ray_actor_environment_registry": {"ACTOR_ENVIRONMENT_REGISTRY": actors},
        "nemo_rl.environments.utils": {"register_env": environments.__setitem__},
        "ray": {"remote": lambda **options: lambda kind: (kind, options)},
    }
    for name, known in modules.items():
        module = ModuleType(name)
        vars(module).update(known)
        monkeypatch.setitem(sys.modules, name, module)
        for parent in (name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)):
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    return {"actors": actors, "environments": environments}


def made(**config: Any) -> Any:
    """An environment as `create_env` makes it of its configuration."""
    kind, options = nemo_rl.RewardServiceEnvironment
    assert options["max_concurrency"] > 1
    return kind(config)


def logs(prompt: str) -> list[Any]:
    """What `get_keys_from_message_log` leaves of message logs after the generation."""
    return [[{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}] for answer in ANSWERS]


def test_registering_names_a_class_that_ray_can_make(trainer: dict[str, Any]) -> None:
    nemo_rl.register("quality")
    (name,) = set(trainer["environments"].values())
    assert trainer == {"actors": {name: "python"}, "environments": {"quality": name}}
    module, _, attribute = name.rpartition(".")
    assert getattr(sys.modules[module], attribute)[0] is nemo_rl.Environment
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        _ = nemo_rl.Other


def test_a_step_ends_every_episode_with_the_services_number(service_url: str, reward: Reward) -> None:
    told = made(url=service_url, objective="both").step(logs(RENDERED), [{"ground_truth": "5.5"}, None, {}, None])
    assert told.rewards.tolist() == pytest.approx([reward(GIRAFFE, answer) for answer in ANSWERS], abs=1e-6)
    assert told.terminateds.tolist() == [True] * 4
    assert [len(field) for field in told] == [4] * 6


def test_message_logs_that_are_not_rendered_go_as_messages(service_url: str, reward: Reward) -> None:
    told = made(url=service_url, input="messages").step(logs(GIRAFFE), [None] * 4)
    assert told.rewards.tolist() == pytest.approx([reward(GIRAFFE, answer) for answer in ANSWERS], abs=1e-6)


def test_components_are_the_terms_by_name(service_url: str, client: Client) -> None:
    told = made(url=service_url, input="messages", components=True).step(logs(GIRAFFE), [None] * 4)
    scores = client.score([{"prompt": GIRAFFE, "response": answer} for answer in ANSWERS]).scores
    for i, name in enumerate(("helpful", "harmless")):
        assert told.rewards[name].tolist() == pytest.approx([one.terms[i].transformed for one in scores], abs=1e-6)


def test_metrics_have_the_mean(service_url: str) -> None:
    batch = {"rewards": torch.tensor([1.0, 2.0])}
    assert made(url=service_url).global_post_process_and_metrics(batch) == (batch, {"reward_service/mean_reward": 1.5})


def test_an_outage_is_an_exception_and_none_is_refused() -> None:
    with pytest.raises(Unavailable):
        made(url=NOBODY, deadline_s=0.3).step(logs(RENDERED), [None] * 4)
    with pytest.raises(ValueError, match="NeMo-RL has no place for a sample without a reward"):
        made(url=NOBODY, on_failure="none")
    with pytest.raises(ValueError, match="no single number can stand for every term"):
        made(url=NOBODY, on_failure=-1.0, components=True)
