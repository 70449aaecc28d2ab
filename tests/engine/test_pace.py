"""How fast a model is thought to be, from its batches and from the answers of a server."""

import asyncio

import pytest

from reward_service.engine.devices import Devices
from reward_service.engine.pace import Speed
from reward_service.engine.remote import RemoteDevice
from tests.engine.fakes import FakeModel, opened, score, text


def test_a_small_batch_of_an_idle_device_does_not_make_it_slow() -> None:
    speed = Speed()
    speed.learn(4000, 1.0, busy=False)
    for _ in range(100):
        speed.learn(10, 0.1, busy=False)
    assert speed.tokens_per_s == pytest.approx(4000)


def test_batches_that_leave_others_waiting_show_how_fast_it_is() -> None:
    speed = Speed()
    speed.learn(4000, 1.0, busy=True)
    for _ in range(100):
        speed.learn(4000, 2.0, busy=True)
    assert speed.tokens_per_s == pytest.approx(2000, rel=0.01)


def test_a_slow_first_batch_is_forgotten_soon() -> None:
    speed = Speed()
    speed.learn(4000, 40.0, busy=True)  # layers are compiled
    for _ in range(30):
        speed.learn(4000, 1.0, busy=True)
    assert speed.tokens_per_s == pytest.approx(4000, rel=0.1)


def test_answers_that_come_in_bursts_are_measured_over_whole_stretches() -> None:
    now = 0.0
    device = RemoteDevice("server", 1000, clock=lambda: now)
    device.started()
    for _ in range(50):
        now += 0.2
        for _ in range(40):
            device.answered(10)
    assert device.tokens_per_s == pytest.approx(2000, rel=0.2)


async def test_single_items_of_a_model_beside_a_busy_one_do_not_make_it_slow(devices: Devices) -> None:
    model, other = FakeModel(seconds=0.01), FakeModel(seconds=0.01)
    model.gate.set()
    other.gate.set()
    intake, beside = opened(devices, model, max_batch_tokens=100), opened(devices, other, name="b", max_batch_tokens=10)
    await score(intake, *[text(20, 100 + n) for n in range(5)])
    before = devices.get("fake").thread.tokens_per_s("m")
    flood = score(beside, *[text(10, 100 + n) for n in range(2000)])
    for n in range(10):
        await score(intake, text(1, 200 + n))
    assert not flood.done()
    assert devices.get("fake").thread.tokens_per_s("m") >= before
    flood.cancel()
    await asyncio.wait([flood])
