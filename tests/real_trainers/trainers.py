"""Which trainers there are here."""

import importlib.util

import pytest


def needs(package: str) -> pytest.MarkDecorator:
    """Skip the tests of a module where its trainer is not installed."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed here; `make test-trainers` runs this")
