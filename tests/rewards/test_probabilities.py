"""Rewards as probabilities, where the recipe says that they are some."""

import math

import pytest

from reward_service.rewards.probabilities import probabilities


@pytest.mark.parametrize(
    ("aggregate", "terms", "rewards", "expected"),
    [
        ("and", [("log_sigmoid", 1.0), ("log_win_rate", 1.0)], [0.0, -1.0], [1.0, math.exp(-1.0)]),
        ("mean", [("sigmoid_centered", 3.0), ("par", 3.0)], [0.25], [0.25]),
        ("weighted_sum", [("par", 0.5), ("win_rate", 0.5)], [0.25], [0.25]),
        ("weighted_sum", [("par", 1.0), ("win_rate", 0.5)], [1.5], None),
        ("mean", [("identity", 1.0)], [0.25], None),
        ("and", [("log_sigmoid", 1.0), ("identity", 0.0)], [0.0], [1.0]),
    ],
)
def test_logarithms_and_shares_are_in_0_to_1_and_real_rewards_are_none(
    aggregate: str, terms: list[tuple[str, float]], rewards: list[float], expected: list[float] | None
) -> None:
    assert probabilities(aggregate, terms, rewards) == expected
