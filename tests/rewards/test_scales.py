"""Typed scales: NOT is a swap, clips keep the pair consistent, and log(1 - e^x) is exact at both ends."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.rewards.scales import Scale, Values, check_clip, clip, log1mexp, negate
from reward_service.rewards.transforms import TRANSFORMS, log_sigmoid, sigmoid_centered

quick = settings(max_examples=100)
margins = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8).map(lambda rows: np.array(rows, dtype=np.float64))


@pytest.mark.parametrize("x", [-1e4, -745.2, -700.0, -50.0, -1.0, -0.7, -0.6931, -0.1, -1e-10, -1e-300, -5e-324])
def test_log1mexp_equals_mpmath(x: float) -> None:
    with mpmath.workdps(400):
        true = float(mpmath.log(-mpmath.expm1(mpmath.mpf(x))))
    assert log1mexp(np.array([x]))[0] == pytest.approx(true, rel=1e-15, abs=1e-323)


@quick
@given(st.floats(-700.0, -1e-300))
def test_log1mexp_is_its_own_inverse_where_it_is_well_conditioned(x: float) -> None:
    back = log1mexp(log1mexp(np.array([x])))[0]
    assert back == pytest.approx(x, rel=1e-12 * max(1.0, -x, -1.0 / x if x > -0.1 else 1.0), abs=1e-12)


@quick
@given(margins)
def test_negate_is_an_involution_on_every_scale(x: np.ndarray) -> None:
    for values in (Values(Scale.REAL, x, None), log_sigmoid(x), sigmoid_centered(x, np.zeros_like(x))):
        twice = negate(negate(values))
        assert twice.scale is values.scale
        np.testing.assert_array_equal(twice.value, values.value)
        if values.complement is not None:
            np.testing.assert_array_equal(twice.complement, values.complement)


def test_not_at_a_margin_of_800_is_minus_800_and_not_minus_infinity() -> None:
    assert negate(log_sigmoid(np.array([800.0]))).value[0] == -800.0


def test_not_of_a_real_number_changes_its_sign() -> None:
    np.testing.assert_array_equal(negate(Values(Scale.REAL, np.array([2.0, -3.0]), None)).value, [-2.0, 3.0])


@quick
@given(margins)
def test_not_equals_the_transform_of_the_opposite_margin(x: np.ndarray) -> None:
    np.testing.assert_array_equal(negate(log_sigmoid(x)).value, log_sigmoid(-x).value)


@quick
@given(margins, st.floats(-1e4, -1e-9), st.floats(0.0, 1.0))
def test_a_clip_keeps_to_its_bounds_and_keeps_the_complement_where_it_does_not_bite(
    x: np.ndarray, low: float, share: float
) -> None:
    values, high = log_sigmoid(x), low * share / 2.0
    clipped = clip(values, low, high)
    assert values.complement is not None
    assert clipped.complement is not None
    assert np.all((clipped.value >= low) & (clipped.value <= high))
    assert np.all(np.isfinite(clipped.complement))
    untouched = clipped.value == values.value
    np.testing.assert_array_equal(clipped.complement[untouched], values.complement[untouched])


def test_a_clip_that_bites_recomputes_the_complement_of_a_log_probability() -> None:
    clipped = clip(log_sigmoid(np.array([-1e4, 0.0, 1e4])), -30.0, -1e-9)
    np.testing.assert_array_equal(clipped.value, [-30.0, np.log(0.5), -1e-9])
    assert clipped.complement is not None
    np.testing.assert_allclose(
        clipped.complement, [np.log1p(-np.exp(-30.0)), np.log(0.5), np.log(-np.expm1(-1e-9))], rtol=1e-15
    )


def test_a_clip_that_bites_recomputes_the_complement_of_a_probability() -> None:
    clipped = clip(sigmoid_centered(np.array([-1e4, 0.0, 1e4]), np.zeros(3)), 0.01, 0.9)
    np.testing.assert_array_equal(clipped.value, [0.01, 0.5, 0.9])
    assert clipped.complement is not None
    np.testing.assert_allclose(clipped.complement, [0.99, 0.5, 0.1], rtol=1e-15)


def test_a_clip_of_a_real_number_is_numpys() -> None:
    clipped = clip(Values(Scale.REAL, np.array([-9.0, 1.0, 9.0]), None), -5.0, 5.0)
    np.testing.assert_array_equal(clipped.value, [-5.0, 1.0, 5.0])
    assert clipped.complement is None


def test_a_clip_at_certainty_creates_no_infinity() -> None:
    for clipped in (
        clip(log_sigmoid(np.array([-1e4, 1e4])), -30.0, 0.0),
        clip(sigmoid_centered(np.array([-1e4, 1e4]), np.zeros(2)), 0.0, 1.0),
    ):
        assert clipped.complement is not None
        assert np.all(np.isfinite(clipped.value))
        assert np.all(np.isfinite(clipped.complement))


def test_a_clip_lets_nan_through() -> None:
    clipped = clip(log_sigmoid(np.array([np.nan])), -30.0, 0.0)
    assert clipped.complement is not None
    assert np.isnan(clipped.value[0])
    assert np.isnan(clipped.complement[0])


@pytest.mark.parametrize(
    ("scale", "low", "high", "sentence"),
    [
        (Scale.REAL, 1.0, 1.0, "must be less than"),
        (Scale.REAL, 2.0, 1.0, "must be less than"),
        (Scale.REAL, float("nan"), 1.0, "must be less than"),
        (Scale.LOG_PROBABILITY, 0.0, 1.0, "below 0"),
        (Scale.LOG_PROBABILITY, -30.0, 0.5, "below 0"),
        (Scale.PROBABILITY, -0.1, 0.5, r"\[0, 1\]"),
        (Scale.PROBABILITY, 0.5, 1.1, r"\[0, 1\]"),
    ],
)
def test_a_clip_that_makes_no_sense_is_refused_with_its_bounds(
    scale: Scale, low: float, high: float, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        check_clip(scale, low, high)
    assert f"[{low}, {high}]" in str(refusal.value)


@pytest.mark.parametrize(
    ("scale", "low", "high"),
    [
        (Scale.REAL, -5.0, 5.0),
        (Scale.REAL, -5.0, float("inf")),
        (Scale.LOG_PROBABILITY, -30.0, 0.0),
        (Scale.LOG_PROBABILITY, -float("inf"), -0.01),
        (Scale.PROBABILITY, 0.0, 1.0),
    ],
)
def test_a_clip_that_makes_sense_is_accepted(scale: Scale, low: float, high: float) -> None:
    check_clip(scale, low, high)


def test_every_scale_has_a_transform() -> None:
    assert {transform.scale for transform in TRANSFORMS.values()} == set(Scale)
