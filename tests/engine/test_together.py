"""A request reaches the device in one piece, however the threads of the process take turns."""

import sys
from collections.abc import Iterator

import pytest

from reward_service.engine.devices import Devices
from tests.engine.fakes import FakeModel, opened, score, text


@pytest.fixture
def many_turns() -> Iterator[None]:
    """The threads take turns all the time, as on a busy machine."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("many_turns")
async def test_an_idle_device_takes_all_items_of_a_request_and_not_the_first(devices: Devices) -> None:
    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model, max_batch_tokens=4096)
    for request in range(50):
        await score(intake, *(text(3, 10_000 + 100 * request + n) for n in range(32)))
    assert [len(batch) for batch in model.batches] == [32] * 50
