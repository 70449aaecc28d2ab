"""The queue and the device thread, with a fake model."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.engine.forward import Layout
from reward_service.engine.lanes import FAILING_BATCHES
from reward_service.engine.rendering import Rendered
from reward_service.errors import DeadlineExceeded, EngineFailed, NotFinite, NotReady, RenderingFailed
from tests.engine.fakes import BAD, NAN, FakeModel, Seen, busy, held_up, opened, queued, score, shared, text, value


async def test_512_concurrent_items_are_answered_in_few_batches(devices: Devices, seen: Seen) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=4096)
    first = await busy(intake, model)
    tasks = [score(intake, text(1 + n % 7, 1000 + n)) for n in range(512)]
    await queued(intake, 512)
    model.gate.set()
    results = [(await task)[0] for task in tasks]
    assert [value(result) for result in results] == [1000 + n for n in range(512)]
    assert value((await first)[0]) == 99
    assert len(model.batches) <= 4
    assert sum(batch["items"] for _, batch in seen.batches) == 513
    assert devices.get("fake").queued_tokens == 0
    assert devices.get("fake").thread.tokens_per_s("m") > 0


async def test_items_whose_caller_has_left_never_reach_the_device(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    left, stays = score(intake, text(3, 5), text(4, 5)), score(intake, text(4, 6))
    await queued(intake, 3)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert devices.get("fake").queued_tokens == 1 + 4
    model.gate.set()
    await asyncio.gather(first, stays)
    assert model.computed == [(99,), (6, 6, 6, 6)]


async def test_a_deadline_is_an_error_of_its_items_and_nothing_is_computed(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    late = score(intake, text(3, 5), Item(text=""), within_s=30)
    await queued(intake, 1)
    loop = asyncio.get_running_loop()
    real_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: real_time() + 30)
    assert [type(result.error) for result in await late if isinstance(result, ItemError)] == [
        DeadlineExceeded,
        RenderingFailed,
    ]
    model.gate.set()
    await first
    assert model.computed == [(99,)]
    assert devices.get("fake").queued_tokens == 0


async def test_work_past_its_deadline_is_dropped_by_the_device_too(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    rendered = Rendered(np.array([5], dtype=np.int32), 0, None)
    answer = devices.get("fake").thread.submit(
        intake.lane, rendered, priority=Priority.ROLLOUT, deadline=time.monotonic() - 1, ahead=0
    )
    model.gate.set()
    result = await answer
    assert isinstance(result, ItemError)
    assert isinstance(result.error, DeadlineExceeded)
    await first
    assert model.computed == [(99,)]


async def test_equal_items_are_computed_once_whether_queued_or_in_flight(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    joins = score(intake, text(1, 99))
    twins = score(intake, text(3, 5), text(3, 5), text(3, 7))
    await queued(intake, 2)
    await shared(intake, 2)
    model.gate.set()
    estimates = [result for result in await twins if isinstance(result, Estimate)]
    assert [float(estimate.outputs[0]) for estimate in estimates] == [5, 5, 7]
    assert [estimate.tokens for estimate in estimates] == [3, 3, 3]
    assert sum(estimate.tokens_computed for estimate in estimates) == 6
    (joined,) = await joins
    assert isinstance(joined, Estimate)
    assert (joined.tokens, joined.tokens_computed) == (1, 0)
    await first
    assert sorted(model.computed) == [(5, 5, 5), (7, 7, 7), (99,)]


async def test_an_equal_item_survives_a_caller_that_leaves(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    leaves = score(intake, text(3, 5))
    await queued(intake, 1)
    stays = score(intake, text(3, 5))
    await shared(intake, 2)
    leaves.cancel()
    model.gate.set()
    assert value((await stays)[0]) == 5
    await first


async def test_of_equal_items_the_first_that_is_answered_bears_the_tokens(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    leaves = await busy(intake, model)
    stays = score(intake, text(1, 99), text(1, 99))
    await shared(intake, 3)
    leaves.cancel()
    model.gate.set()
    estimates = [result for result in await stays if isinstance(result, Estimate)]
    assert [estimate.tokens_computed for estimate in estimates] == [1, 0]


async def test_a_failing_item_fails_alone(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    task = score(intake, *[text(2, 20 + n) for n in range(8)], text(2, BAD), text(2, NAN))
    await queued(intake, 10)
    model.gate.set()
    results = await task
    assert [value(result) for result in results[:8]] == [20 + n for n in range(8)]
    errors = [result.error for result in results[8:] if isinstance(result, ItemError)]
    assert [type(error) for error in errors] == [EngineFailed, NotFinite]
    assert "bad item" in errors[0].detail
    await first
    assert value((await score(intake, text(1, 3)))[0]) == 3


async def test_the_thread_outlives_a_model_that_answers_nonsense(devices: Devices) -> None:
    class Short(FakeModel):
        def compute(self, prepared: object, pause: object) -> Any:
            return np.zeros((0, 1))

    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model)
    intake.lane.forward = Short()
    (result,) = await score(intake, text(2))
    assert isinstance(result, ItemError)
    assert isinstance(result.error, EngineFailed)
    intake.lane.forward = model
    assert value((await score(intake, text(2, 4)))[0]) == 4


async def test_a_model_is_out_of_order_after_batches_without_a_score_and_recovers(devices: Devices) -> None:
    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model)
    for n in range(FAILING_BATCHES):
        assert intake.lane.failure is None
        async with held_up(devices):
            task = score(intake, text(2 + n, BAD), text(1, BAD))
            await queued(intake, 2)  # a batch of both
        await task
    assert intake.lane.failure is not None
    await score(intake, text(2, BAD), text(2, 3))
    assert intake.lane.failure is None


async def test_a_device_that_answers_nan_works(devices: Devices) -> None:
    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model)
    for n in range(FAILING_BATCHES):
        await score(intake, text(2 + n, NAN))
    assert intake.lane.failure is None


async def test_close_finishes_what_was_accepted_and_takes_no_more(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    task = score(intake, *[text(2, 20 + n) for n in range(8)])
    await queued(intake, 8)
    closing = asyncio.create_task(intake.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await score(intake, text(1))
    model.gate.set()
    assert [value(result) for result in await task] == [20 + n for n in range(8)]
    await asyncio.gather(closing, first)


class Unchoosable(FakeModel):
    """A model among whose work no batch can be chosen, as long as it is `broken`."""

    broken = True

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        if self.broken:
            raise RuntimeError("no layout")
        return Layout.PADDED


async def test_a_failure_to_choose_a_batch_is_reported_and_the_thread_goes_on(devices: Devices) -> None:
    model, other = Unchoosable(), FakeModel()
    model.gate.set()
    intake, sound = opened(devices, model), opened(devices, other, name="sound")
    first = await busy(sound, other)
    waiting = [score(intake, text(3, 5)), score(intake, text(4, 6), text(4, 7))]
    await queued(intake, 3)
    other.gate.set()
    for task in waiting:
        for result in await task:
            assert isinstance(result, ItemError)
            assert isinstance(result.error, EngineFailed)
            assert "no layout" in result.error.detail
    assert "no layout" in (intake.lane.failure or "")
    assert sound.lane.failure is None
    await first
    assert devices.get("fake").queued_tokens == 0
    model.broken = False
    assert value((await score(intake, text(3, 8)))[0]) == 8
    assert intake.lane.failure is None


async def test_a_failure_to_choose_what_is_prepared_ahead_is_reported_too(devices: Devices) -> None:
    model, other = Unchoosable(), FakeModel()
    model.gate.set()
    intake = opened(devices, model, max_batch_tokens=10)
    sound = opened(devices, other, name="sound")
    first = await busy(sound, other)  # while it runs, a full batch of the other model would be prepared
    task = score(intake, *[text(10, 20 + n) for n in range(8)])  # each of them would fill it
    results = await task
    assert {type(result.error) for result in results if isinstance(result, ItemError)} == {EngineFailed}
    assert not first.done()
    other.gate.set()
    await first
    model.broken = False
    assert value((await score(intake, text(3, 8)))[0]) == 8
