"""GRPO, GDPO and RLOO are TRL's own numbers: its trainers, made for real, compute the advantages of given rewards."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from reward_service.rewards.groups import RULES, Scaling, gdpo, grpo, rloo
from reward_service.rewards.scales import Array
from tests.rewards import pinned
from tests.trainers.policy import byte_tokenizer, tiny_policy

pytest.importorskip("trl", reason="TRL is not installed: its advantages cannot be compared with")

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL asks for the old name

TRL = RULES["trl"]
WEIGHTS = pinned.WEIGHTS
Given = list[list[float | None]]


@dataclass
class Trainers:
    """A GRPOTrainer and an RLOOTrainer whose three reward functions return what `given` holds."""

    given: Given
    grpo: Any = None
    rloo: Any = None

    def function(self, place: int) -> Any:
        """The reward function of one term."""

        def reward(completions: list[str], **columns: Any) -> list[float | None]:
            return self.given[place]

        reward.__name__ = f"term_{place}"
        return reward

    def advantages(self, trainer: Any, terms: Array, size: int) -> Array:
        """The advantages that a trainer computes from its functions' rewards (terms, n) in groups of one size."""
        trainer.num_generations = trainer.num_generations_eval = size
        self.given = [[None if np.isnan(number) else number for number in term] for term in terms.tolist()]
        with torch.no_grad():
            found = trainer._generate_and_score_completions([{"prompt": "p"}] * terms.shape[1])
        advantages: Array = found["advantages"].double().numpy()
        return advantages


def rewards(numbers: np.random.Generator, count: int, missing: float) -> Array:
    """Rewards (terms, n) in float32, as TRL keeps them, NaN where a term has none."""
    table = numbers.normal(scale=[[0.3], [1.0], [3.0]], size=(3, count))
    table[numbers.random(table.shape) < missing] = np.nan
    return table.astype(np.float32).astype(np.float64)


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Trainers:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    made = Trainers([])
    tokenizer = byte_tokenizer()
    arguments = {
        "output_dir": str(tmp_path_factory.mktemp("trl")),
        "max_completion_length": 1,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "reward_weights": WEIGHTS,
        "beta": 0.0,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
    }
    parts = {
        "reward_funcs": [made.function(place) for place in range(3)],
        "train_dataset": Dataset.from_dict({"prompt": ["p"] * 4}),
        "processing_class": tokenizer,
    }
    policy = tiny_policy(tokenizer, hidden_size=8, intermediate_size=8)
    made.grpo = in_double(GRPOTrainer(policy, args=GRPOConfig(**arguments), **parts))
    made.rloo = in_double(RLOOTrainer(policy, args=RLOOConfig(**arguments), **parts))
    return made


def in_double(trainer: Any) -> Any:
    """The trainer, computing in float64: float32 loses up to 1e-5 where the rewards of a group hardly differ."""
    calculate = trainer._calculate_rewards
    trainer._calculate_rewards = lambda *arguments: calculate(*arguments).double()
    trainer.reward_weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    return trainer


def summed(terms: Array) -> Array:
    """What TRL trains on: the weighted sum of the rewards that there are, NaN where there is none."""
    total = np.nansum(np.array(WEIGHTS)[:, None] * terms, axis=0)
    return np.where(np.isnan(terms).all(axis=0), np.nan, total)


def equals(ours: Array, theirs: Array) -> None:
    """TRL writes 0 for a response without a reward, which stays NaN here."""
    np.testing.assert_allclose(np.nan_to_num(ours), theirs, rtol=1e-6, atol=1e-6)


def cases(seed: int) -> Iterator[tuple[Array, list[int], int]]:
    """Rewards of three terms, the group of each, and the size of the groups: whole, with gaps, and nearly empty."""
    numbers = np.random.default_rng(seed)
    for size, missing in itertools.product((1, 2, 4, 8), (0.0, 0.3, 0.9)):
        yield rewards(numbers, 6 * size, missing), [i // size for i in range(6 * size)], size
    yield rewards(numbers, 1, 0.0), [0], 1
    yield np.full((3, 4), 0.1, dtype=np.float32).astype(np.float64), [0] * 4, 4


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_is_that_of_the_grpo_trainer_at_every_scale(trainers: Trainers, scale: Scaling) -> None:
    trainers.grpo.multi_objective_aggregation = "sum_then_normalize"
    trainers.grpo.scale_rewards = scale
    for terms, groups, size in cases(1):
        equals(grpo(summed(terms), groups, replace(TRL, scale=scale)), trainers.advantages(trainers.grpo, terms, size))


def test_gdpo_is_that_of_the_grpo_trainer_that_normalizes_before_it_sums(trainers: Trainers) -> None:
    trainers.grpo.multi_objective_aggregation = "normalize_then_sum"
    for terms, groups, size in cases(2):
        equals(gdpo(list(terms), WEIGHTS, groups, TRL), trainers.advantages(trainers.grpo, terms, size))


def test_rloo_is_that_of_the_rloo_trainer(trainers: Trainers) -> None:
    for terms, groups, size in cases(3):
        equals(rloo(summed(terms), groups, TRL), trainers.advantages(trainers.rloo, terms, size))


def test_the_numbers_without_trl_are_those_with_it(trainers: Trainers) -> None:
    """`test_groups.py` compares with numbers that were taken here."""
    terms = np.array(pinned.TERMS)
    taken = {"rloo": trainers.advantages(trainers.rloo, terms, pinned.SIZE)}
    for scale in ("group", "batch", "none"):
        trainers.grpo.multi_objective_aggregation, trainers.grpo.scale_rewards = "sum_then_normalize", scale
        taken[f"grpo, scale {scale}"] = trainers.advantages(trainers.grpo, terms, pinned.SIZE)
    trainers.grpo.multi_objective_aggregation = "normalize_then_sum"
    taken["gdpo"] = trainers.advantages(trainers.grpo, terms, pinned.SIZE)
    for name, theirs in taken.items():
        np.testing.assert_allclose(theirs, pinned.TRL[name], rtol=1e-6, atol=1e-6, err_msg=name)
