"""SIGTERM ends the service as Ctrl-C does: what runs is closed."""

import signal
from pathlib import Path

import pytest

from tests.process import ServiceProcess, demo_toml


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    with ServiceProcess(demo_toml(tmp_path)) as service:
        assert service.ended_by(number) == 0
