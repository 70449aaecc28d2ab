"""Group-relative rewards equal the papers' formulas and the trainers' numbers, and leave out what is missing."""

from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.rewards.groups import RULES, Rules, gdpo, group_problems, grpo, rloo
from reward_service.rewards.scales import Array
from reward_service.rewards.transforms import log_sigmoid
from tests.rewards import pinned

quick = settings(max_examples=100)
TRL, VERL = RULES["trl"], RULES["verl"]
NAN = float("nan")
reward = st.one_of(st.floats(-1e6, 1e6), st.just(NAN))
batches = st.lists(st.tuples(reward, st.sampled_from("abcd")), min_size=0, max_size=24)


def close(ours: Array, expected: Any, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)


def summed(terms: Array) -> Array:
    total = np.nansum(np.array(pinned.WEIGHTS)[:, None] * terms, axis=0)
    return np.where(np.isnan(terms).all(axis=0), NAN, total)


def test_the_numbers_are_those_of_trl() -> None:
    terms = np.array(pinned.TERMS)
    groups = [i // pinned.SIZE for i in range(terms.shape[1])]
    close(np.nan_to_num(rloo(summed(terms), groups, TRL)), pinned.TRL["rloo"])
    close(np.nan_to_num(gdpo(list(terms), pinned.WEIGHTS, groups, TRL)), pinned.TRL["gdpo"])
    for scale in ("group", "batch", "none"):
        ours = grpo(summed(terms), groups, replace(TRL, scale=scale))
        close(np.nan_to_num(ours), pinned.TRL[f"grpo, scale {scale}"])


def test_the_numbers_are_those_of_verl() -> None:
    terms, groups = np.array(pinned.VERL_TERMS), pinned.VERL_GROUPS
    close(grpo(terms[0], groups, VERL), pinned.VERL["grpo"])
    close(grpo(terms[0], groups, replace(VERL, scale="none")), pinned.VERL["grpo, scale none"])
    close(rloo(terms[0], groups, VERL), pinned.VERL["rloo"])
    ours = gdpo(list(terms), pinned.WEIGHTS, groups, VERL, tokens=np.array(pinned.VERL_LENGTHS))
    close(ours, pinned.VERL["gdpo"])


def members(batch: list[tuple[float, str]], group: str) -> list[Fraction]:
    """Exact, so that the formulas below lose no digits."""
    return [Fraction(r) for r, g in batch if g == group and not np.isnan(r)]


@given(batch=batches, ddof=st.sampled_from([0, 1]))
@quick
def test_grpo_and_rloo_are_their_formulas_over_what_there_is_of_each_group(
    batch: list[tuple[float, str]], ddof: int
) -> None:
    rewards, groups = np.array([r for r, _ in batch]), [g for _, g in batch]
    rules = replace(TRL, ddof=ddof)
    ours = zip(batch, grpo(rewards, groups, rules), rloo(rewards, groups, rules), strict=True)
    for (r, group), of_grpo, of_rloo in ours:
        there = members(batch, group)
        if np.isnan(r):
            assert np.isnan([of_grpo, of_rloo]).all()
        elif len(there) == 1:
            assert of_grpo == of_rloo == 0.0
        else:
            mean = sum(there) / len(there)
            std = sqrt(sum((one - mean) ** 2 for one in there) / (len(there) - ddof))
            assert of_grpo == pytest.approx(float(Fraction(r) - mean) / (std + rules.eps), rel=1e-9, abs=1e-9)
            others = (sum(there) - Fraction(r)) / (len(there) - 1)
            assert of_rloo == pytest.approx(float(Fraction(r) - others), rel=1e-9, abs=1e-9)


@given(batch=batches)
@quick
def test_a_missing_reward_changes_nothing_for_the_others(batch: list[tuple[float, str]]) -> None:
    rewards, groups = np.array([r for r, _ in batch]), [g for _, g in batch]
    there = ~np.isnan(rewards)
    left = [group for group, is_there in zip(groups, there, strict=True) if is_there]
    for estimate in (grpo, rloo):
        for rules in (TRL, VERL, replace(TRL, scale="batch")):
            whole, alone = estimate(rewards, groups, rules), estimate(rewards[there], left, rules)
            assert np.array_equal(whole[there], alone)
    whole = gdpo([rewards, -rewards], [1.0, 2.0], groups)
    assert np.array_equal(whole[there], gdpo([rewards[there], -rewards[there]], [1.0, 2.0], left))


def test_equal_rewards_are_exactly_0_under_any_rules() -> None:
    rewards, groups = np.array([0.1] * 3 + [1e6 + 0.3] * 7), ["a"] * 3 + ["b"] * 7
    for rules in (TRL, VERL, replace(TRL, eps=1e-300), replace(VERL, scale="batch")):
        assert not grpo(rewards, groups, rules).any()
        assert not rloo(rewards, groups, rules).any()
        assert not gdpo([rewards, rewards], [1.0, 0.3], groups, rules).any()


def test_a_reward_alone_in_its_group_is_0_by_trls_rules_and_itself_by_verls() -> None:
    rewards, groups = np.array([3.0, 1.0, 2.0, NAN]), ["alone", "pair", "pair", "alone"]
    assert grpo(rewards, groups, TRL)[0] == rloo(rewards, groups, TRL)[0] == 0.0
    assert grpo(rewards, groups, VERL)[0] == 3.0 / (1.0 + 1e-6)
    assert grpo(rewards, groups, replace(VERL, scale="none"))[0] == rloo(rewards, groups, VERL)[0] == 3.0


def test_gdpo_is_blind_to_the_scale_of_a_term_and_grpo_is_not() -> None:
    numbers = np.random.default_rng(0)
    small, large = numbers.normal(size=(2, 64))
    groups = [i // 8 for i in range(64)]
    rules = replace(TRL, eps=1e-12, batch_eps=1e-12)
    close(gdpo([small, large], [1.0, 1.0], groups, rules), gdpo([small, 100 * large], [1.0, 1.0], groups, rules))
    both = grpo(small + 100 * large, groups, rules)
    assert np.corrcoef(both, grpo(large, groups, rules))[0, 1] > 0.99


def test_gdpo_tells_one_property_won_from_two_where_grpo_does_not() -> None:
    """The example of arXiv:2601.05242: two responses a prompt, two properties that hold or not."""
    first, second = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    groups = ["0 and 1", "0 and 1", "0 and 2", "0 and 2", "1 and 2", "1 and 2"]
    sure = replace(TRL, eps=1e-12, batch_eps=1e-12)
    close(np.abs(grpo(first + second, groups, sure)), np.full(6, 0.5**0.5))
    one, _, two, _, last, _ = np.abs(gdpo([first, second], [1.0, 1.0], groups, sure))
    assert (two / one, last / one) == pytest.approx((2.0, 1.0))


def test_scaling_by_the_group_takes_away_the_weight_that_lsc_gives_weak_prompts() -> None:
    """Figures of docs/choosing-rewards.md: 8 responses a prompt, scores of std 1.5, 3 below or 3 above the baseline."""
    margins = np.random.default_rng(0).normal(scale=1.5, size=(2, 4000, 8)) + np.array([-3.0, 3.0])[:, None, None]
    rewards = log_sigmoid(margins.ravel()).value
    groups = [i // 8 for i in range(len(rewards))]
    found = {}
    for scale in ("none", "group"):
        weak, solved = np.abs(grpo(rewards, groups, replace(TRL, scale=scale))).reshape(2, -1).mean(axis=1)
        found[scale] = (float(weak), float(solved))
    assert found["none"] == pytest.approx((1.03, 0.11), abs=0.02)
    assert found["group"] == pytest.approx((0.78, 0.74), abs=0.02)


def test_a_response_that_lacks_a_term_has_the_sum_of_the_others() -> None:
    first, second = np.array([1.0, 2.0, 4.0, NAN]), np.array([5.0, NAN, 1.0, NAN])
    ours = gdpo([first, second], [1.0, 2.0], ["g"] * 4)
    z_first, z_second = grpo(first, ["g"] * 4), grpo(second, ["g"] * 4)
    summed = np.array([z_first[0] + 2 * z_second[0], z_first[1], z_first[2] + 2 * z_second[2]])
    close(ours[:3], (summed - summed.mean()) / (summed.std(ddof=1) + 1e-4), 1e-12)
    assert np.isnan(ours[3])


def test_no_rewards_have_no_advantages() -> None:
    assert grpo(np.empty(0), []).shape == rloo(np.empty(0), []).shape == gdpo([np.empty(0)], [1.0], []).shape == (0,)
    assert np.isnan(gdpo([np.full(3, NAN)], [1.0], "aab")).all()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ddof": 2}, r"ddof = 2; valid: 0 or 1"),
        ({"eps": 0.0}, r"eps = 0.0; valid: a finite number above 0"),
        ({"eps": NAN}, r"eps = nan"),
        ({"batch_eps": 0.0}, r"batch_eps = 0.0, batch_variance_eps = 0.0; valid: .* not both 0"),
        ({"batch_eps": -1.0}, r"batch_eps = -1.0"),
    ],
)
def test_rules_that_are_none_are_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Rules(**{**{name: getattr(TRL, name) for name in Rules.__slots__}, **changed})


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, 1e200])
def test_rewards_that_cannot_be_compared_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="a reward is beyond 1e\\+150"):
        grpo(np.array([1.0, wrong]), ["a", "a"])
    with pytest.raises(ValueError, match="a reward is beyond 1e\\+150"):
        gdpo([np.array([1.0, 2.0])], [1e200], ["a", "a"])
    with pytest.raises(ValueError, match="for 3 groups"):
        rloo(np.array([1.0, 2.0]), ["a", "a", "b"])


def test_whole_groups_have_no_problems_and_others_are_told_with_their_counts() -> None:
    assert group_problems(["a", "b", "a", None, "free", "free"], [2, 1, 2, None, None, None]) == []
    assert group_problems(["a", "a", "b", None, "c", "c"], [3, 3, None, 4, 2, 3]) == [
        "conversations[3]: group_size 4 without a `group`",
        "group 'a': 2 conversations in the request, and group_size is 3",
        "group 'c': group_size is 2 and 3; all conversations of a group name one size",
    ]
    assert group_problems(["a", "a", "a"], [2, 2, 2]) == [
        "group 'a': 3 conversations in the request, and group_size is 2"
    ]
    assert group_problems(["a", "a"], [2, None]) == [
        "group 'a': group_size is 2 and none; all conversations of a group name one size"
    ]
