"""Transforms equal their formulas, SciPy and the published numbers, and are finite for every reward up to 1e4."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from reward_service.rewards.references import Ragged, share_below
from reward_service.rewards.scales import Scale, Values
from reward_service.rewards.transforms import (
    TRANSFORMS,
    Needs,
    calibrate,
    centered,
    identity,
    log_sigmoid,
    log_sigmoid_centered,
    log_win_rate,
    par,
    sigmoid_centered,
    standardize,
    win_rate,
)

quick = settings(max_examples=60)
reward = st.floats(-1e4, 1e4)
row = st.lists(reward, min_size=2, max_size=20).map(lambda rows: np.array(rows, dtype=np.float64))
conversations = st.lists(st.tuples(reward, reward, row), min_size=1, max_size=6)
BY_RANK = [win_rate, log_win_rate, par]


def unpacked(
    rows: list[tuple[float, float, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, Ragged]:
    return np.array([r for r, _, _ in rows]), np.array([b for _, b, _ in rows]), Ragged.of([m for _, _, m in rows])


def one(value: float) -> np.ndarray:
    return np.array([value])


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(-1000.0, -1000.0), (0.0, -0.6931471805599453), (50.0, -1.9287498479639178e-22), (1000.0, 0.0)],
)
def test_log_sigmoid_centered_equals_the_published_checks(margin: float, expected: float) -> None:
    assert log_sigmoid_centered(one(margin + 3.0), one(3.0)).value[0] == pytest.approx(expected, rel=1e-15, abs=0.0)


@pytest.mark.parametrize("margin", [-1e4, -800.0, -745.0, -50.0, -1.0, 0.0, 1e-9, 1.0, 50.0, 700.0, 1e4])
def test_log_sigmoid_centered_and_its_not_equal_mpmath(margin: float) -> None:
    values = log_sigmoid_centered(one(margin), one(0.0))
    assert values.complement is not None
    with mpmath.workdps(50):
        for got, x in ((values.value[0], margin), (values.complement[0], -margin)):
            assert got == pytest.approx(float(-mpmath.log1p(mpmath.exp(-mpmath.mpf(x)))), rel=1e-14, abs=1e-323)


@quick
@given(st.lists(reward, min_size=1, max_size=9))
def test_sigmoids_equal_scipys(rewards: list[float]) -> None:
    r = np.array(rewards)
    np.testing.assert_allclose(log_sigmoid(r).value, special.log_expit(r), rtol=1e-13, atol=1e-323)
    tiny = float(np.finfo(np.float64).tiny)  # below it SciPy gives 0; the next test holds ours to mpmath there
    np.testing.assert_allclose(sigmoid_centered(r, np.zeros_like(r)).value, special.expit(r), rtol=1e-13, atol=tiny)


@pytest.mark.parametrize("margin", [-700.0, -709.0, -710.0, -720.0, -740.0])
def test_a_probability_keeps_what_a_double_can_hold_of_it(margin: float) -> None:
    found = sigmoid_centered(np.array([margin]), np.zeros(1)).value[0]
    assert found == pytest.approx(float(1 / (1 + mpmath.exp(-mpmath.mpf(margin)))), rel=1e-12, abs=1e-323)


def test_log_sigmoid_is_log_sigmoid_centered_at_a_baseline_of_zero() -> None:
    r = np.linspace(-1e4, 1e4, 41)
    np.testing.assert_array_equal(log_sigmoid(r).value, log_sigmoid_centered(r, np.zeros_like(r)).value)


def test_identity_and_centered_are_r_and_r_minus_b() -> None:
    r, b = np.array([1.5, -2.0]), np.array([0.5, 3.0])
    np.testing.assert_array_equal(identity(r).value, r)
    np.testing.assert_array_equal(centered(r, b).value, [1.0, -5.0])


def test_sigmoid_centered_is_one_half_at_the_baseline() -> None:
    assert sigmoid_centered(one(7.0), one(7.0)) == Values(Scale.PROBABILITY, one(0.5), one(0.5))


def test_par_is_the_mean_sigmoid_of_the_margins() -> None:
    references = Ragged.of([np.array([0.0, 1.0, 4.0]), np.array([2.0])])
    expected = [special.expit([1.0, 0.0, -3.0]).mean(), special.expit(3.0)]
    np.testing.assert_allclose(par(np.array([1.0, 5.0]), references).value, expected, rtol=1e-15)


def test_the_complement_of_a_probability_near_1_keeps_its_digits() -> None:
    references = Ragged.of([np.array([0.0, 0.0])])
    for values in (par(one(100.0), references), sigmoid_centered(one(100.0), one(0.0))):
        assert values.complement is not None
        assert values.complement[0] == pytest.approx(np.exp(-100.0), rel=1e-14, abs=0.0)


@quick
@given(row)
def test_par_and_win_rate_average_one_half_over_the_reference_policy_itself(rewards: np.ndarray) -> None:
    references = Ragged.of([rewards] * len(rewards))
    assert np.mean(par(rewards, references).value) == pytest.approx(0.5, rel=1e-12)
    assert np.mean(win_rate(rewards, references).value) == pytest.approx(0.5, rel=1e-12)


def test_over_the_reference_policy_par_averages_one_half_but_sigmoid_centered_at_q85_does_not() -> None:
    draws = np.random.default_rng(0).normal(0.0, 1.0, (2, 1000))
    references = Ragged.of([draws[1]] * 1000)
    assert par(draws[0], references).value.mean() == pytest.approx(0.5, abs=0.02)
    baseline = np.full(1000, np.quantile(draws[1], 0.85))
    assert sigmoid_centered(draws[0], baseline).value.mean() < 0.35


def test_win_rate_is_the_smoothed_mid_rank() -> None:
    references = Ragged.of([np.array([0.0, 1.0, 1.0, 2.0])] * 4)
    rates = win_rate(np.array([-1.0, 1.0, 1.5, 9.0]), references)
    np.testing.assert_allclose(rates.value, [0.5 / 5, 2.5 / 5, 3.5 / 5, 4.5 / 5], rtol=1e-15)
    assert rates.complement is not None
    np.testing.assert_allclose(rates.complement, [4.5 / 5, 2.5 / 5, 1.5 / 5, 0.5 / 5], rtol=1e-15)


@quick
@given(conversations)
def test_win_rate_equals_scipys_mid_rank_among_reward_and_references(
    rows: list[tuple[float, float, np.ndarray]],
) -> None:
    r, _, references = unpacked(rows)
    ranks = np.array([stats.rankdata([reward, *m])[0] - 0.5 for reward, _, m in rows])
    np.testing.assert_allclose(win_rate(r, references).value, ranks / (references.counts + 1), rtol=1e-14)


@quick
@given(conversations)
def test_win_rate_follows_from_the_share_below_and_the_count(rows: list[tuple[float, float, np.ndarray]]) -> None:
    r, _, references = unpacked(rows)
    expected = (share_below(r, references) * references.counts + 0.5) / (references.counts + 1)
    np.testing.assert_allclose(win_rate(r, references).value, expected, rtol=1e-14)
    np.testing.assert_allclose(log_win_rate(r, references).value, np.log(expected), rtol=1e-12)


@quick
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=20), st.integers(-50, 50))
def test_win_rate_is_unchanged_by_an_increasing_distortion(references: list[int], raw: int) -> None:
    r, m = one(float(raw)), np.array(references, dtype=np.float64)
    distorted = win_rate(np.exp(r / 10) + r**3, Ragged.of([np.exp(m / 10) + m**3]))
    np.testing.assert_array_equal(distorted.value, win_rate(r, Ragged.of([m])).value)


def test_standardize_equals_scipys_zscore_of_the_references_themselves() -> None:
    rewards = np.random.default_rng(3).normal(5.0, 3.0, 12)
    standardized = standardize(rewards, Ragged.of([rewards] * 12))
    np.testing.assert_allclose(standardized.value, stats.zscore(rewards, ddof=1), rtol=1e-12)


def test_standardize_gives_nan_for_references_equal_but_for_rounding() -> None:
    rows = [np.array([1.0, 1.00000012]), np.array([1000.0, 1000.0001]), np.array([1.0, 1.001])]
    value = standardize(np.full(3, 1.5), Ragged.of(rows)).value
    assert np.isnan(value).tolist() == [True, True, False]


def test_standardize_gives_nan_for_one_or_equal_references_and_spares_the_neighbours() -> None:
    rows = [np.array([1.0, 3.0]), np.array([2.0]), np.full(3, 0.1), np.array([1.0, np.inf]), np.array([1.0, 3.0])]
    value = standardize(np.full(5, 2.0), Ragged.of(rows)).value
    np.testing.assert_array_equal(value, [0.0, np.nan, np.nan, np.nan, 0.0])


@pytest.mark.parametrize("name", TRANSFORMS)
@quick
@given(rows=conversations)
def test_every_transform_is_finite_and_keeps_to_its_scale(
    name: str, rows: list[tuple[float, float, np.ndarray]]
) -> None:
    r, b, references = unpacked(rows)
    values = TRANSFORMS[name].apply(r, b, references)
    assert values.scale is TRANSFORMS[name].scale
    assert values.value.shape == r.shape
    if name == "standardize":
        usable = np.array([np.std(m, ddof=1) > 1.001e-6 * max(1.0, abs(np.mean(m))) for _, _, m in rows])
        assert np.all(np.isfinite(values.value[usable]))
        return
    assert np.all(np.isfinite(values.value))
    if values.complement is None:
        assert values.scale is Scale.REAL
        return
    assert np.all(np.isfinite(values.complement))
    if values.scale is Scale.PROBABILITY:
        assert np.all((values.value >= 0.0) & (values.value <= 1.0))
        np.testing.assert_allclose(values.value + values.complement, 1.0, rtol=1e-14)
    else:
        assert np.all(values.value <= 0.0)
        np.testing.assert_allclose(np.exp(values.value) + np.exp(values.complement), 1.0, rtol=1e-14)


@pytest.mark.parametrize("name", TRANSFORMS)
@quick
@given(pair=st.tuples(reward, reward), baseline=reward, references=row)
def test_every_transform_rises_with_the_raw_reward(
    name: str, pair: tuple[float, float], baseline: float, references: np.ndarray
) -> None:
    low, high = TRANSFORMS[name].apply(np.sort(pair), np.full(2, baseline), Ragged.of([references, references])).value
    assert np.isnan(low) or low <= high + 1e-14 * abs(high)


@pytest.mark.parametrize("name", [name for name, t in TRANSFORMS.items() if t.needs is Needs.REFERENCES])
@quick
@given(raw=reward, references=st.lists(st.integers(-100, 100), min_size=2, max_size=20), seed=st.integers(0, 99))
def test_no_transform_depends_on_the_order_of_the_references(
    name: str, raw: float, references: list[int], seed: int
) -> None:
    m = np.array(references, dtype=np.float64)
    shuffled = np.random.default_rng(seed).permutation(m)
    before, after = (TRANSFORMS[name].apply(one(raw), None, Ragged.of([order])).value for order in (m, shuffled))
    np.testing.assert_allclose(before, after, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_conversation_is_transformed_alike_alone_and_among_others(name: str) -> None:
    random = np.random.default_rng(5)
    r, b = random.normal(0.0, 9.0, (2, 37))
    rows = [random.normal(0.0, 9.0, count) for count in random.integers(2, 70, 37)]
    together = TRANSFORMS[name].apply(r, b, Ragged.of(rows)).value
    for i in range(37):
        alone = TRANSFORMS[name].apply(r[i : i + 1], b[i : i + 1], Ragged.of([rows[i]])).value
        np.testing.assert_array_equal(alone, together[i : i + 1])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_nan_stays_nan_and_touches_no_neighbour(name: str) -> None:
    b, references = np.zeros(2), Ragged.of([np.array([0.0, 1.0])] * 2)
    value = TRANSFORMS[name].apply(np.array([np.nan, 0.5]), b, references).value
    np.testing.assert_array_equal(np.isnan(value), [True, False])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_reads_only_what_it_needs_and_refuses_to_do_without(name: str) -> None:
    needs = TRANSFORMS[name].needs
    r, b, references = one(1.0), one(0.0), Ragged.of([np.array([0.0, 1.0])])
    given_only = (b if needs is Needs.BASELINE else None, references if needs is Needs.REFERENCES else None)
    assert TRANSFORMS[name].apply(r, *given_only).value.shape == (1,)
    if needs is not Needs.NOTHING:
        with pytest.raises(ValueError, match=f"needs a? ?{needs}"):
            TRANSFORMS[name].apply(r, None, None)


def test_the_table_names_all_nine_transforms() -> None:
    assert list(TRANSFORMS) == [
        "identity",
        "centered",
        "log_sigmoid_centered",
        "log_sigmoid",
        "sigmoid_centered",
        "par",
        "win_rate",
        "log_win_rate",
        "standardize",
    ]


def test_an_empty_request_has_no_values() -> None:
    for transform in TRANSFORMS.values():
        assert transform.apply(np.empty(0), np.empty(0), Ragged.of([])).value.shape == (0,)


def test_the_temperature_divides_rewards_and_references() -> None:
    np.testing.assert_array_equal(calibrate(np.array([3.0, -1.0]), 2.0), [1.5, -0.5])
    np.testing.assert_array_equal(calibrate(Ragged.of([np.array([3.0])]), 2.0).values, [1.5])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature = {temperature}"):
        calibrate(np.ones(1), temperature)
