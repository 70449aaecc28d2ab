"""A burst that lasts longer than a request may wait, by a clock that no pause of the machine moves."""

from types import SimpleNamespace

import pytest

from reward_service.errors import Overloaded
from tests.access.configs import MODEL
from tests.scripted import ScriptedEngine

PATIENT = f"[limits]\nrequest_timeout_s = 60\n{MODEL}"
CALLS = 3
"""What fits into the two thirds of 60 s in which a request may still be let in."""


def let_a_burst_last(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room at `engine`, however often it is asked; each time it is, 15 s have passed for the one who waits."""
    engine.raises = Overloaded("no room", retry_after_s=0.01)
    clock = SimpleNamespace(monotonic=lambda: 15.0 * len(engine.calls))
    monkeypatch.setattr("reward_service.api.dialects.patience.time", clock)
