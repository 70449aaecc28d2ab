"""Aggregations equal mpmath, SciPy and brute force at margins up to 1e4, and say what is wrong with an objective."""

from collections.abc import Sequence
from itertools import combinations, pairwise, product

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reward_service.rewards.aggregation import AGGREGATIONS, check_terms
from reward_service.rewards.scales import Scale, Values, negate
from reward_service.rewards.transforms import TRANSFORMS, log_sigmoid, sigmoid_centered

quick = settings(max_examples=60)
margin = st.floats(-1e4, 1e4)
columns = st.lists(margin, min_size=1, max_size=6)
MARGINS = (1e4, -1e4, 0.0, 50.0, -50.0, 745.0, 800.0)
LOG, P, REAL = Scale.LOG_PROBABILITY, Scale.PROBABILITY, Scale.REAL


def logs(margins: Sequence[float]) -> list[Values]:
    return [log_sigmoid(np.array([x])) for x in margins]


def probabilities(margins: Sequence[float]) -> list[Values]:
    return [sigmoid_centered(np.array([x]), np.zeros(1)) for x in margins]


def reals(numbers: Sequence[float]) -> list[Values]:
    return [Values(REAL, np.array([x]), None) for x in numbers]


def aggregate(
    name: str, terms: Sequence[Values], weights: Sequence[float] | None = None, k: int | None = None
) -> float:
    return float(AGGREGATIONS[name].apply(terms, np.ones(len(terms)) if weights is None else np.array(weights), k)[0])


def true_tail(margins: Sequence[float], k: int) -> float:
    """log P(at least k hold) by enumeration; the rarer side is summed, so that no digit is lost near 0."""
    with mpmath.workdps(60):
        p = [1 / (1 + mpmath.exp(-mpmath.mpf(x))) for x in margins]
        q = [1 / (1 + mpmath.exp(mpmath.mpf(x))) for x in margins]
        sides = [mpmath.mpf(0), mpmath.mpf(0)]
        for holds in product((0, 1), repeat=len(margins)):
            chance = mpmath.fprod(p[i] if held else q[i] for i, held in enumerate(holds))
            sides[sum(holds) >= k] += chance
        fails, success = sides
        return float(mpmath.log1p(-fails) if success > 0.5 else mpmath.log(success))


def equals(got: float, true: float) -> bool:
    return bool(np.isfinite(got)) and got == pytest.approx(true, rel=1e-12, abs=1e-323)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_and_or_and_k_of_n_equal_mpmath_at_extreme_and_mixed_margins(size: int) -> None:
    for margins in combinations(MARGINS * 2, size) if size < 3 else combinations(MARGINS, size):
        assert equals(aggregate("and", logs(margins)), true_tail(margins, size)), margins
        assert equals(aggregate("or", logs(margins)), true_tail(margins, 1)), margins
        for k in range(1, size + 1):
            assert equals(aggregate("k_of_n", logs(margins), k=k), true_tail(margins, k)), (margins, k)


def test_k_of_n_of_all_the_extreme_margins_at_once_equals_mpmath() -> None:
    for k in range(1, len(MARGINS) + 1):
        assert equals(aggregate("k_of_n", logs(MARGINS), k=k), true_tail(MARGINS, k))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_not_then_or_equals_mpmath_at_extreme_margins(sign: float) -> None:
    margins = [sign * x for x in MARGINS]
    for one, other in combinations(margins, 2):
        got = aggregate("or", [negate(term) for term in logs([one, other])])
        assert equals(got, true_tail([-one, -other], 1))


@quick
@given(st.lists(margin, min_size=1, max_size=5))
def test_and_or_and_k_of_n_equal_mpmath_at_any_margin(margins: list[float]) -> None:
    assert equals(aggregate("and", logs(margins)), true_tail(margins, len(margins)))
    for k in range(1, len(margins) + 1):
        assert equals(aggregate("k_of_n", logs(margins), k=k), true_tail(margins, k))


@quick
@given(columns)
def test_one_of_n_is_or_and_n_of_n_is_and_and_more_is_rarer(margins: list[float]) -> None:
    tails = [aggregate("k_of_n", logs(margins), k=k) for k in range(1, len(margins) + 1)]
    assert tails[0] == aggregate("or", logs(margins))
    assert tails[-1] == pytest.approx(aggregate("and", logs(margins)), rel=1e-12, abs=1e-323)
    assert all(0.0 >= easier >= harder - 1e-12 * abs(harder) for easier, harder in pairwise(tails))


@quick
@given(columns)
def test_and_is_below_the_least_term_and_or_above_the_greatest(margins: list[float]) -> None:
    terms = logs(margins)
    greatest = max(float(term.value[0]) for term in terms)
    assert aggregate("and", terms) <= aggregate("min", terms) <= greatest
    assert greatest <= aggregate("or", terms) + 1e-12 * abs(greatest) <= 1e-8


@quick
@given(columns)
def test_or_is_not_and_of_nots(margins: list[float]) -> None:
    """De Morgan, compared as probabilities."""
    nots = [negate(term) for term in logs(margins)]
    assert np.exp(aggregate("or", logs(margins))) == pytest.approx(-np.expm1(aggregate("and", nots)), rel=1e-11)


@pytest.mark.skipif(not hasattr(stats, "poisson_binom"), reason="SciPy has it from 1.15 on")
@quick
@given(st.lists(st.floats(-6.0, 6.0), min_size=1, max_size=9), st.data())
def test_k_of_n_equals_scipys_poisson_binomial(margins: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(margins)))
    p = [float(term.value[0]) for term in probabilities(margins)]
    assert np.exp(aggregate("k_of_n", logs(margins), k=k)) == pytest.approx(
        stats.poisson_binom.sf(k - 1, p), rel=1e-9, abs=1e-13
    )


@pytest.mark.parametrize("name", AGGREGATIONS)
@quick
@given(margins=columns, data=st.data())
def test_every_aggregation_is_finite_on_every_scale_it_accepts(
    name: str, margins: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(margins))) if AGGREGATIONS[name].needs_k else None
    for scale in AGGREGATIONS[name].scales:
        terms = {LOG: logs, P: probabilities, REAL: reals}[scale](margins)
        assert np.isfinite(aggregate(name, terms, k=k))


@quick
@given(st.lists(st.tuples(margin, st.floats(0.0, 4.0)), min_size=1, max_size=6))
def test_weights_scale_the_logs_in_and_and_are_exponents_in_geometric(pairs: list[tuple[float, float]]) -> None:
    margins, weights = [x for x, _ in pairs], [w for _, w in pairs]
    if not any(weights):
        return
    expected = sum(w * float(term.value[0]) for term, w in zip(logs(margins), weights, strict=True))
    assert aggregate("and", logs(margins), weights) == pytest.approx(expected, rel=1e-12, abs=1e-323)
    if min(margins) > -600.0 and expected > -600.0:  # below, p itself loses digits to underflow
        assert aggregate("geometric", probabilities(margins), weights) == pytest.approx(
            np.exp(expected), rel=1e-10, abs=0.0
        )


@quick
@given(st.lists(st.tuples(margin, st.floats(0.01, 4.0)), min_size=1, max_size=7))
def test_the_averages_equal_numpys(pairs: list[tuple[float, float]]) -> None:
    numbers, weights = [x for x, _ in pairs], [w for _, w in pairs]
    assert aggregate("weighted_sum", reals(numbers), weights) == pytest.approx(np.dot(weights, numbers), abs=1e-9)
    assert aggregate("mean", reals(numbers), weights) == pytest.approx(np.average(numbers, weights=weights), abs=1e-9)
    assert aggregate("min", reals(numbers)) == min(numbers)
    assert aggregate("median", reals(numbers)) == np.median(numbers)


def test_closed_forms_of_two_even_chances() -> None:
    terms = logs([0.0, 0.0])
    assert aggregate("and", terms) == pytest.approx(np.log(1 / 4), rel=1e-15)
    assert aggregate("or", terms) == pytest.approx(np.log(3 / 4), rel=1e-15)
    assert aggregate("k_of_n", logs([0.0] * 3), k=2) == pytest.approx(np.log(1 / 2), rel=1e-15)
    assert aggregate("geometric", probabilities([0.0, 0.0]), [1.0, 2.0]) == 1 / 8


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_watched_term_changes_nothing_even_when_nan(name: str) -> None:
    scale = next(iter(AGGREGATIONS[name].scales))
    terms = {LOG: logs, P: probabilities, REAL: reals}[scale]([1.0, np.nan, -2.0])
    k = 2 if AGGREGATIONS[name].needs_k else None
    assert aggregate(name, terms, [1.0, 0.0, 1.0], k) == aggregate(name, [terms[0], terms[2]], k=k)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_nan_in_a_term_is_nan_for_that_conversation_only(name: str) -> None:
    x, y = np.array([np.nan, 1.0, 1e4]), np.array([1e4, 2.0, np.nan])
    terms = [log_sigmoid(x), log_sigmoid(y)]
    if LOG not in AGGREGATIONS[name].scales:
        terms = [sigmoid_centered(x, np.zeros(3)), sigmoid_centered(y, np.zeros(3))]
    for k in (1, 2) if AGGREGATIONS[name].needs_k else (None,):
        reward = AGGREGATIONS[name].apply(terms, np.ones(2), k)
        np.testing.assert_array_equal(np.isnan(reward), [True, False, True])


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_conversation_is_aggregated_alike_alone_and_among_others(name: str) -> None:
    margins = np.random.default_rng(5).normal(0.0, 30.0, (11, 37))
    scale = next(iter(AGGREGATIONS[name].scales))
    k = 5 if AGGREGATIONS[name].needs_k else None

    def terms(chosen: np.ndarray) -> list[Values]:
        return [
            {LOG: log_sigmoid(x), P: sigmoid_centered(x, np.zeros_like(x)), REAL: Values(REAL, x, None)}[scale]
            for x in chosen
        ]

    together = AGGREGATIONS[name].apply(terms(margins), np.ones(11), k)
    for i in range(37):
        alone = AGGREGATIONS[name].apply(terms(margins[:, i : i + 1]), np.ones(11), k)
        np.testing.assert_array_equal(alone, together[i : i + 1])


@pytest.mark.parametrize("k", [None, 0, 3])
def test_k_of_n_refuses_a_k_out_of_range(k: int | None) -> None:
    with pytest.raises(ValueError, match="1 to 2"):
        aggregate("k_of_n", logs([0.0, 1.0]), k=k)


def test_or_of_real_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no complement"):
        aggregate("or", reals([1.0]))


@pytest.mark.parametrize(
    ("name", "scales", "weights", "k"),
    [
        ("and", [LOG, LOG], [0.5, 2.0], None),
        ("or", [LOG, LOG, REAL], [1.0, 1.0, 0.0], None),
        ("k_of_n", [LOG, LOG], [1.0, 1.0], 2),
        ("geometric", [P, P], [0.5, 2.0], None),
        ("weighted_sum", [REAL, REAL], [0.5, 2.0], None),
        ("mean", [P], [3.0], None),
        ("min", [LOG, LOG], [1.0, 1.0], None),
        ("median", [REAL], [1.0], None),
    ],
)
def test_a_right_objective_has_no_problems(name: str, scales: list[Scale], weights: list[float], k: int | None) -> None:
    assert check_terms(name, scales, weights, k) == []


@pytest.mark.parametrize(
    ("name", "scales", "weights", "k", "parts"),
    [
        ("xor", [LOG], [1.0], None, ["'xor'", "and, or, k_of_n"]),
        ("and", [LOG, REAL], [1.0, 1.0], None, ["terms[1] is real", "'and'", "log_sigmoid_centered", "log_win_rate"]),
        ("geometric", [LOG], [1.0], None, ["terms[0] is log_probability", "sigmoid_centered, par, win_rate"]),
        ("mean", [LOG, REAL], [1.0, 1.0], None, ["one scale", "terms[0] is log_probability", "terms[1] is real"]),
        ("and", [LOG], [-1.0], None, ["terms[0]", "-1.0", "at least 0"]),
        ("and", [LOG], [float("nan")], None, ["terms[0]", "nan", "finite"]),
        ("median", [REAL], [2.0], None, ["terms[0]", "2.0", "'median'", "0 to watch"]),
        ("and", [LOG], [0.0], None, ["'and'", "weight above 0"]),
        ("and", [], [], None, ["'and'", "at least one"]),
        ("k_of_n", [LOG, LOG], [1.0, 1.0], None, ["needs k", "1 to 2"]),
        ("k_of_n", [LOG, LOG], [1.0, 0.0], 2, ["k = 2", "1 to 1"]),
        ("k_of_n", [LOG], [1.0], 0, ["k = 0", "1 to 1"]),
        ("or", [LOG], [1.0], 1, ["k = 1", "only k_of_n"]),
    ],
)
def test_a_wrong_objective_is_told_the_value_and_what_is_valid(
    name: str, scales: list[Scale], weights: list[float], k: int | None, parts: list[str]
) -> None:
    problems = check_terms(name, scales, weights, k)
    assert len(problems) == 1
    for part in parts:
        assert part in problems[0]


def test_all_problems_are_said_at_once() -> None:
    assert len(check_terms("k_of_n", [REAL, P, LOG], [1.0, 0.5, -1.0], 9)) == 5


def test_the_table_names_all_eight_aggregations() -> None:
    assert list(AGGREGATIONS) == ["and", "or", "k_of_n", "geometric", "weighted_sum", "mean", "min", "median"]


def test_every_scale_an_aggregation_accepts_is_reachable_by_a_transform() -> None:
    yielded = {transform.scale for transform in TRANSFORMS.values()}
    assert all(aggregation.scales <= yielded for aggregation in AGGREGATIONS.values())
