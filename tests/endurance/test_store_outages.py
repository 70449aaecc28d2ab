"""The outages of tests/replicas, again and again under more load."""

import pytest

from tests.replicas import test_store_outages as outages
from tests.replicas.test_store_outages import (
    test_a_store_that_is_frozen_for_two_seconds,
    test_a_store_that_is_full_is_read_and_refuses_writes,
    test_a_store_that_is_killed_and_comes_back,
    test_a_store_that_takes_two_seconds_for_each_answer,
)

__all__ = [
    "test_a_store_that_is_frozen_for_two_seconds",
    "test_a_store_that_is_full_is_read_and_refuses_writes",
    "test_a_store_that_is_killed_and_comes_back",
    "test_a_store_that_takes_two_seconds_for_each_answer",
]


@pytest.fixture(autouse=True)
def full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 workers, ten outages each."""
    monkeypatch.setattr(outages, "WORKERS", 64)
    monkeypatch.setattr(outages, "OUTAGES", 10)
    monkeypatch.setattr(outages, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(outages, "OUTAGE_S", 3.0)
