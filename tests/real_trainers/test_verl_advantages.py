"""GRPO, GDPO and RLOO are verl's own numbers, by its functions, where verl is installed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reward_service.rewards.groups import RULES, gdpo, grpo, rloo
from reward_service.rewards.scales import Array
from tests.rewards import pinned

algorithms = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed: nothing to compare with")
torch = pytest.importorskip("torch")

VERL = RULES["verl"]
LENGTH = 7


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets verl compute in float64 where it asks for float32, which loses 1e-6 where rewards hardly differ."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(np, "float32", np.float64)


def of_verl(function: Any, rewards: Array, groups: Sequence[str], lengths: Array, **options: Any) -> Array:
    """The advantage that a function of verl gives the tokens of each response; its reward stands at the last one."""
    found, _ = function(_at_the_last(rewards, lengths), _mask(lengths), np.array(groups, dtype=object), **options)
    advantages: Array = found[:, 0].numpy()
    return advantages


def of_verls_gdpo(terms: Array, weights: Sequence[float], groups: Sequence[str], lengths: Array) -> Array:
    names = [f"term_{i}" for i in range(len(terms))]
    mask = _mask(lengths)
    batch = {"prompts": torch.zeros(len(groups), 2), "attention_mask": torch.cat([torch.ones(len(groups), 2), mask], 1)}
    return of_verl(
        algorithms.compute_gdpo_outcome_advantage,
        terms.sum(axis=0),
        groups,
        lengths,
        config={"gdpo_reward_keys": names, "gdpo_reward_weights": list(weights)},
        non_tensor_batch=dict(zip(names, terms, strict=True)),
        batch={name: one.long() for name, one in batch.items()},
    )


def _mask(lengths: Array) -> Any:
    return torch.from_numpy((np.arange(LENGTH) < lengths[:, None]).astype(np.float64))


def _at_the_last(rewards: Array, lengths: Array) -> Any:
    placed = torch.zeros(len(rewards), LENGTH, dtype=torch.float64)
    placed[np.arange(len(rewards)), lengths.astype(int) - 1] = torch.from_numpy(rewards)
    return placed


def cases() -> Iterator[tuple[Array, list[str], Array]]:
    """Rewards of three terms, groups of 1 to 8 in mixed order, and the lengths of the responses."""
    for seed in range(20):
        numbers = np.random.default_rng(seed)
        groups = [f"g{group}" for group, size in enumerate((1, 2, 3, 8, 1, 4)) for _ in range(size)]
        numbers.shuffle(groups)
        terms = numbers.normal(scale=[[0.3], [1.0], [3.0]], size=(3, len(groups)))
        yield terms, groups, numbers.integers(1, LENGTH + 1, len(groups)).astype(np.float64)


@pytest.mark.parametrize("name", ["compute_grpo_outcome_advantage", "compute_grpo_vectorized_outcome_advantage"])
@pytest.mark.parametrize("scaled", [True, False])
def test_grpo_is_verls(name: str, scaled: bool) -> None:
    rules = VERL if scaled else replace(VERL, scale="none")
    for terms, groups, lengths in cases():
        theirs = of_verl(getattr(algorithms, name), terms[1], groups, lengths, norm_adv_by_std_in_grpo=scaled)
        np.testing.assert_allclose(grpo(terms[1], groups, rules), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "singleton"),
    [("compute_rloo_outcome_advantage", "raw"), ("compute_rloo_vectorized_outcome_advantage", "zero")],
)
def test_rloo_is_verls_whose_vectorized_one_gives_0_to_a_reward_alone(name: str, singleton: Any) -> None:
    for terms, groups, lengths in cases():
        theirs = of_verl(getattr(algorithms, name), terms[1], groups, lengths)
        ours = rloo(terms[1], groups, replace(VERL, singleton=singleton))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_gdpo_is_verls_with_the_lengths_of_the_responses() -> None:
    for terms, groups, lengths in cases():
        theirs = of_verls_gdpo(terms, pinned.WEIGHTS, groups, lengths)
        ours = gdpo(list(terms), pinned.WEIGHTS, groups, VERL, tokens=lengths)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_numbers_without_verl_are_those_with_it() -> None:
    """`tests/rewards/test_groups.py` compares with numbers that were taken here."""
    terms, groups, lengths = np.array(pinned.VERL_TERMS), pinned.VERL_GROUPS, np.array(pinned.VERL_LENGTHS)
    of_grpo, of_rloo = algorithms.compute_grpo_outcome_advantage, algorithms.compute_rloo_outcome_advantage
    taken = {
        "grpo": of_verl(of_grpo, terms[0], groups, lengths),
        "grpo, scale none": of_verl(of_grpo, terms[0], groups, lengths, norm_adv_by_std_in_grpo=False),
        "rloo": of_verl(of_rloo, terms[0], groups, lengths),
        "gdpo": of_verls_gdpo(terms, pinned.WEIGHTS, groups, lengths),
    }
    for name, theirs in taken.items():
        np.testing.assert_allclose(theirs, pinned.VERL[name], rtol=1e-6, atol=1e-6, err_msg=name)
