"""The losses of tests/client/test_losing_a_service.py at full size: 20,000 conversations, 20 s without a service."""

import os
from collections.abc import Iterator

import pytest

from tests.client import test_losing_a_service as losing
from tests.client.test_losing_a_service import (
    groups,
    pair,
    test_one_of_two_replicas_is_killed,
    test_the_only_replica_is_gone_for_a_while,
    undisturbed,
)

__all__ = [
    "groups",
    "pair",
    "test_one_of_two_replicas_is_killed",
    "test_the_only_replica_is_gone_for_a_while",
    "undisturbed",
]

pytestmark = pytest.mark.skipif(  # before the module's replicas are started
    os.environ.get("REWARD_SERVICE_ENDURANCE") != "1", reason="takes minutes; `make test-endurance` runs it"
)


@pytest.fixture(autouse=True, scope="module")
def full_size() -> Iterator[None]:
    """The figures of the bar."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losing, "CONVERSATIONS", 20_000)
        patch.setattr(losing, "GAP_S", 20.0)
        patch.setattr(losing, "LOG_EVERY_S", 10.0)
        yield
