"""Quantiles of many values in little memory, against NumPy's of all of them."""

import numpy as np
import pytest

from reward_service.jobs.distributions import BUFFER, Distribution

SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
SAMPLES = {
    "normal": np.random.default_rng(1).normal(size=200_000),
    "log normal": np.random.default_rng(2).lognormal(0, 4, 200_000),
    "sorted": np.arange(200_000.0),
    "reversed": -np.arange(200_000.0),
    "far off": 1e9 + np.random.default_rng(3).normal(size=200_000),
    "two values": np.random.default_rng(4).integers(0, 2, 200_000).astype(float),
}


def distribution(values: np.ndarray) -> Distribution:
    found = Distribution()
    for part in np.array_split(values, 1 + len(values) // 2000):
        found.add(part)
    return found


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "two values"])
def test_ranks_of_quantiles_are_off_by_less_than_a_thousandth(name: str) -> None:
    values = SAMPLES[name]
    found = distribution(values)
    ordered = np.sort(values)
    for share in SHARES:
        rank = np.searchsorted(ordered, found.quantile(share)) / len(values)
        assert rank == pytest.approx(share, abs=1e-3), share


@pytest.mark.parametrize("name", SAMPLES)
def test_moments_and_ends_are_exact(name: str) -> None:
    values = SAMPLES[name]
    found = distribution(values)
    assert found.count == len(values)
    assert found.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert (found.smallest, found.largest) == (values.min(), values.max())


def test_quantiles_of_few_values_are_exact() -> None:
    values = np.random.default_rng(5).normal(size=BUFFER)
    found = distribution(values)
    for share in SHARES:
        assert found.quantile(share) == pytest.approx(np.quantile(values, share, method="hazen"), rel=1e-12)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    found = Distribution()
    for seed in range(300):
        found.add(np.random.default_rng(seed).normal(size=5000))
    assert found.count == 1_500_000
    assert len(found._means) <= BUFFER + 5000


def test_a_histogram_counts_what_lies_between_its_edges() -> None:
    values = SAMPLES["normal"]
    edges, counts = distribution(values).histogram()
    expected, _ = np.histogram(values, edges)
    assert counts == pytest.approx(expected, abs=0.001 * len(values))
