"""What a wrong serving looks like, on numbers alone."""

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reward_service.engine.parity import traps

ROWS = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2), min_size=8, max_size=12)


@given(ROWS, st.floats(0.0, 10.0), st.randoms(use_true_random=False))
def test_no_pair_flips_whose_gap_is_over_twice_the_noise(rows: list[list[float]], noise: float, random: Random) -> None:
    expected = np.array(rows)
    found = expected + np.array([[random.uniform(-noise, noise) for _ in row] for row in rows])
    assert traps.flips(found, expected, np.full(2, 2 * noise + 1e-9)) == 0
    apart = len(np.unique(expected[:, 0])) * (len(np.unique(expected[:, 0])) - 1) // 2
    assert traps.flips(-expected[:, :1], expected[:, :1], np.zeros(1)) >= apart


@given(ROWS)
def test_activations_lie_in_0_to_1_and_raw_scores_that_do_are_told(rows: list[list[float]]) -> None:
    raw = np.array(rows)
    none = np.zeros(2)
    assert traps.range_trap(traps.sigmoid(raw)) is not None
    assert traps.range_trap(traps.softmax(raw)) == "all scores lie in [0, 1] and add up to 1: a softmax is left on"
    assert traps.activation_trap(traps.sigmoid(raw), raw, none) == "a sigmoid is left on"
    assert traps.activation_trap(raw - 2e3, raw, none) is None


def test_few_scores_prove_no_trap() -> None:
    assert traps.range_trap(np.full((traps.FEW - 1, 1), 0.5)) is None
    assert not traps.is_rounded(np.ones((traps.FEW - 1, 1)))
