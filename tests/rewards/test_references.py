"""Reference statistics equal NumPy's and SciPy's, and their standard errors equal what resampling finds."""

from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reward_service.rewards.references import (
    QuantileMethod,
    Ragged,
    moments,
    quantile_error,
    share_below,
    summaries,
    summarise,
)

quick = settings(max_examples=60)
reward = st.floats(-1e4, 1e4)
row = st.lists(reward, min_size=1, max_size=40).map(lambda rows: np.array(rows, dtype=np.float64))
quantiles = st.floats(0.01, 0.99)
DRAWS = np.random.default_rng(7).normal(1.0, 2.0, 64)


@quick
@given(st.lists(reward, min_size=20, max_size=64), quantiles)
def test_from_20_references_on_the_baseline_is_numpys_quantile(rewards: list[float], quantile: float) -> None:
    summary = summarise(np.array(rewards), quantile, "auto")
    assert summary.method == "empirical"
    assert summary.value == np.quantile(rewards, quantile)


@quick
@given(st.lists(reward, min_size=2, max_size=19), quantiles)
def test_below_20_references_the_baseline_is_the_normal_quantile_of_scipy(
    rewards: list[float], quantile: float
) -> None:
    summary = summarise(np.array(rewards), quantile, "auto")
    assert summary.method == "normal"
    expected = np.mean(rewards) + stats.norm.ppf(quantile) * np.std(rewards, ddof=1)
    assert summary.value == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_normal_approximation_adds_z85_stds_to_the_mean() -> None:
    summary = summarise(np.array([-1.0, 0.0, 1.0]), 0.85, "auto")
    assert (summary.mean, summary.std) == (0.0, 1.0)
    assert summary.value == pytest.approx(1.0364333894937898, rel=1e-15)


@quick
@given(reward, quantiles, st.sampled_from(["auto", "empirical", "normal"]))
def test_one_reference_is_the_baseline_itself_and_has_no_std(
    only: float, quantile: float, method: QuantileMethod
) -> None:
    summary = summarise(np.array([only]), quantile, method)
    assert (summary.count, summary.value, summary.mean) == (1, only, only)
    assert (summary.std, summary.standard_error) == (None, None)
    assert (summary.method, summary.quantile) == ("empirical", quantile)


def test_the_mean_has_no_quantile() -> None:
    summary = summarise(np.array([1.0, 2.0, 6.0]), 0.85, "mean")
    assert (summary.method, summary.quantile, summary.value) == ("mean", None, 3.0)
    assert summary.standard_error == pytest.approx(stats.sem([1.0, 2.0, 6.0]), rel=1e-15)
    assert summarise(np.array([1.0]), 0.85, "mean").standard_error is None


@quick
@given(
    st.lists(st.sampled_from([1, 2, 9, 19, 20, 64, 256]), min_size=1, max_size=8),
    quantiles,
    st.sampled_from(["auto", "empirical", "normal", "mean"]),
)
def test_many_summaries_equal_each_alone_bit_for_bit(
    counts: list[int], quantile: float, method: QuantileMethod
) -> None:
    chance = np.random.default_rng(sum(counts))
    rows = [chance.standard_t(3, count) for count in counts]
    assert summaries(rows, quantile, method) == [summarise(row, quantile, method) for row in rows]


def test_equal_references_have_a_std_of_exactly_zero_and_are_the_baseline() -> None:
    for count in (3, 19, 20, 200):
        summary = summarise(np.full(count, 0.1), 0.85, "auto")
        assert (summary.std, summary.standard_error) == (0.0, 0.0)
        assert summary.value == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.5, 85.0, float("nan")])
def test_a_quantile_outside_0_and_1_is_refused(quantile: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        summarise(DRAWS, quantile, "auto")


def test_no_references_are_refused() -> None:
    with pytest.raises(ValueError, match="no references"):
        summarise(np.empty(0), 0.85, "auto")
    with pytest.raises(ValueError, match="conversation 1 has no references"):
        Ragged.of([np.ones(2), np.empty(0)])


@pytest.mark.parametrize(("count", "quantile"), [(20, 0.85), (21, 0.5), (64, 0.85), (64, 0.99), (256, 0.05)])
def test_the_empirical_standard_error_uses_the_beta_weights_of_scipy(count: int, quantile: float) -> None:
    rewards = np.random.default_rng(count).standard_t(3, count)
    h = (count - 1) * quantile + 1
    weights = np.diff(stats.beta.cdf(np.arange(count + 1) / count, h, count + 1 - h))
    ordered = np.sort(rewards)
    expected = sqrt(np.sum(weights * (ordered - weights @ ordered) ** 2))
    assert quantile_error(rewards, quantile) == pytest.approx(expected, rel=1e-5)


def test_the_empirical_standard_error_at_a_whole_rank_is_the_exact_bootstrap() -> None:
    rewards = DRAWS[:21]  # the median is the 11th of 21
    resampled = np.random.default_rng(0).choice(rewards, (100_000, 21))
    assert quantile_error(rewards, 0.5) == pytest.approx(np.std(np.median(resampled, axis=1)), rel=0.01)


def test_the_empirical_standard_error_between_ranks_is_close_to_the_bootstrap() -> None:
    resampled = np.random.default_rng(0).choice(DRAWS, (20_000, 64))
    assert quantile_error(DRAWS, 0.85) == pytest.approx(np.std(np.quantile(resampled, 0.85, axis=1)), rel=0.1)


def test_the_normal_standard_error_is_the_spread_of_the_estimate_over_fresh_references() -> None:
    fresh = np.random.default_rng(0).normal(0.0, 1.0, (50_000, 10))
    z = NormalDist().inv_cdf(0.85)
    spread = np.std(fresh.mean(axis=1) + z * fresh.std(axis=1, ddof=1))
    rewards = np.linspace(-1.0, 1.0, 10)
    summary = summarise(rewards, 0.85, "normal")
    assert summary.standard_error == pytest.approx(np.std(rewards, ddof=1) * spread, rel=0.02)


@quick
@given(st.lists(reward, min_size=2, max_size=40), quantiles, st.randoms(use_true_random=False))
def test_a_summary_does_not_depend_on_the_order_of_the_references(
    rewards: list[float], quantile: float, random: np.random.Generator
) -> None:
    shuffled = rewards.copy()
    random.shuffle(shuffled)
    one, other = (summarise(np.array(order), quantile, "auto") for order in (rewards, shuffled))
    assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-9)
    assert one.std == pytest.approx(other.std, rel=1e-9, abs=1e-9)
    assert one.standard_error == pytest.approx(other.standard_error, rel=1e-9, abs=1e-9)


@quick
@given(st.lists(reward, min_size=2, max_size=40), quantiles, st.sampled_from(["empirical", "normal", "mean"]))
def test_every_field_of_a_summary_is_finite(rewards: list[float], quantile: float, method: QuantileMethod) -> None:
    summary = summarise(np.array(rewards), quantile, method)
    numbers = (summary.mean, summary.std, summary.value, summary.standard_error)
    assert all(number is not None and np.isfinite(number) for number in numbers)


@quick
@given(st.lists(row, min_size=1, max_size=6))
def test_moments_equal_numpys_row_by_row(rows: list[np.ndarray]) -> None:
    means, stds = moments(Ragged.of(rows))
    np.testing.assert_allclose(means, [np.mean(row) for row in rows], rtol=1e-12, atol=1e-10)
    expected = [np.std(row, ddof=1) if len(row) > 1 else np.nan for row in rows]
    np.testing.assert_allclose(stds, expected, rtol=1e-9, atol=1e-10)


@quick
@given(st.lists(st.tuples(reward, row), min_size=1, max_size=6))
def test_share_below_equals_scipys_mean_percentile(pairs: list[tuple[float, np.ndarray]]) -> None:
    raw, rows = np.array([r for r, _ in pairs]), [references for _, references in pairs]
    expected = [stats.percentileofscore(row, r, kind="mean") / 100.0 for r, row in zip(raw, rows, strict=True)]
    np.testing.assert_allclose(share_below(raw, Ragged.of(rows)), expected, rtol=1e-12, atol=1e-15)


def test_share_below_counts_a_tie_as_one_half() -> None:
    references = Ragged.of([np.array([0.0, 1.0, 1.0, 2.0]), np.array([5.0])])
    np.testing.assert_array_equal(share_below(np.array([1.0, 5.0]), references), [0.5, 0.5])


def test_share_below_of_nan_is_nan_and_spares_the_neighbours() -> None:
    references = Ragged.of([np.array([0.0, np.nan]), np.array([0.0]), np.array([0.0])])
    np.testing.assert_array_equal(share_below(np.array([1.0, np.nan, 1.0]), references), [np.nan, np.nan, 1.0])


def test_a_division_by_the_temperature_keeps_the_rows() -> None:
    halved = Ragged.of([np.array([2.0, 4.0]), np.array([6.0])]) / 2.0
    np.testing.assert_array_equal(halved.values, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(halved.counts, [2, 1])
