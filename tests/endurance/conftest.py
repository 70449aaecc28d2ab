"""The full-size forms of what the suite tests small: minutes each, so that they run only when asked for."""

import os
from pathlib import Path

import pytest

VARIABLE = "REWARD_SERVICE_ENDURANCE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(VARIABLE) == "1":
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"takes minutes: run `make test-endurance`, or set {VARIABLE}=1"))
