import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from reward_service.training.margins import accuracy, fit_temperature, negative_log_likelihood, wilson_interval


def test_a_tie_counts_one_half() -> None:
    assert accuracy(np.array([1.0, -2.0, 0.0, 3.0])) == 0.625


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (276, 467), (467, 467)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_likelihood_of_zero_margins_is_a_coin_toss() -> None:
    assert negative_log_likelihood(np.zeros(3), temperature=2.0) == pytest.approx(math.log(2.0))


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_minimises_the_likelihood(seed: int) -> None:
    margins = np.random.default_rng(seed).normal(0.4, 1.5, 500)
    best = minimize_scalar(
        lambda log_t: negative_log_likelihood(margins, math.exp(log_t)), bounds=(-5, 5), method="bounded"
    )
    temperature = fit_temperature(margins)
    assert math.log(temperature) == pytest.approx(best.x, abs=1e-4)
    assert negative_log_likelihood(margins, temperature) <= best.fun + 1e-12


def test_the_temperature_of_equal_margins_has_a_closed_form() -> None:
    # Three pairs right and one wrong by the same m: sigmoid(m / T) = 3/4, so T = m / log 3.
    assert fit_temperature(np.array([2.0, 2.0, 2.0, -2.0])) == pytest.approx(2.0 / math.log(3.0))


def test_the_temperature_scales_with_the_margins() -> None:
    margins = np.random.default_rng(5).normal(0.3, 1.0, 200)
    assert fit_temperature(10 * margins) == pytest.approx(10 * fit_temperature(margins))


@pytest.mark.parametrize("margins", [[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]])
def test_margins_without_a_finite_temperature_are_refused(margins: list[float]) -> None:
    with pytest.raises(ValueError, match="no finite temperature"):
        fit_temperature(np.array(margins))
