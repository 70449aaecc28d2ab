"""The queue and the device thread, with a fake model."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from reward_service.engine.batching import Work, by_priority, choose
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.engine.intake import Intake, Result
from reward_service.engine.rendering import Rendered
from reward_service.engine.scheduler import FAILING_BATCHES, OLDEST_EVERY
from reward_service.errors import DeadlineExceeded, EngineFailed, NotFinite, NotReady, RenderingFailed
from tests.engine.fakes import BAD, NAN, FakeModel, opened, text, until


class Seen:
    """Remembers what the device reports."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, dict[str, Any]]] = []

    def on_batch(self, model: str, *, items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        self.batches.append((model, {"items": items, "tokens": tokens, "padded_tokens": padded_tokens}))


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def devices(seen: Seen) -> AsyncIterator[Devices]:
    made = Devices(max_queued_tokens=100_000, observer=seen)
    yield made
    await made.close()


def score(
    intake: Intake, *items: Item, priority: Priority = Priority.ROLLOUT, within_s: float = 30
) -> "asyncio.Task[list[Result]]":
    return asyncio.create_task(intake.score(items, priority=priority, deadline=time.monotonic() + within_s))


async def reached(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


async def queued(intake: Intake, count: int) -> None:
    await until(lambda: len(intake.lane.waiting) >= count)


async def busy(intake: Intake, model: FakeModel) -> "asyncio.Task[list[Result]]":
    """Occupies the device with one item until the model's gate opens."""
    task = score(intake, text(1, 99))
    await reached(model.started)
    return task


def value(result: Result) -> float:
    assert isinstance(result, Estimate)
    return float(result.outputs[0])


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
    assert devices.get("fake").tokens_per_s > 0


async def test_a_batch_respects_the_padded_token_limit(devices: Devices, seen: Seen) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=64)
    first = await busy(intake, model)
    tasks = [score(intake, text(1 + n % 30, 1000 + n)) for n in range(60)]
    await queued(intake, 60)
    model.gate.set()
    await asyncio.gather(first, *tasks)
    assert max(batch["padded_tokens"] for _, batch in seen.batches) <= 64


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


async def test_a_deadline_is_an_error_of_its_items_and_nothing_is_computed(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = await busy(intake, model)
    late = await score(intake, text(3, 5), Item(text=""), within_s=0.05)
    assert [type(result.error) for result in late if isinstance(result, ItemError)] == [
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
    await asyncio.sleep(0.05)
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
    await asyncio.sleep(0.05)
    leaves.cancel()
    model.gate.set()
    assert value((await stays)[0]) == 5
    await first


async def test_rollouts_go_before_jobs(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=8)
    first = await busy(intake, model)
    jobs = [score(intake, text(8, 100 + n), priority=Priority.JOB) for n in range(3)]
    await queued(intake, 3)
    rollouts = [score(intake, text(8, 200 + n)) for n in range(3)]
    await queued(intake, 6)
    model.gate.set()
    await asyncio.gather(first, *jobs, *rollouts)
    order = [ids[0] for ids in model.computed[1:]]
    assert set(order[:3]) == {200, 201, 202}


async def test_a_job_is_not_starved_by_rollouts(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=8)
    first = await busy(intake, model)
    job = score(intake, text(8, 100), priority=Priority.JOB)
    await queued(intake, 1)
    rollouts = [score(intake, text(8, 200 + n)) for n in range(3 * OLDEST_EVERY)]
    await queued(intake, 1 + len(rollouts))
    model.gate.set()
    await asyncio.gather(first, job, *rollouts)
    assert [ids[0] for ids in model.computed].index(100) < OLDEST_EVERY + 1


async def test_a_small_request_does_not_wait_for_all_of_a_large_one(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=40)
    first = await busy(intake, model)
    large = score(intake, *[text(10, 100 + n) for n in range(100)])
    await queued(intake, 100)
    small = score(intake, text(10, 999))
    await queued(intake, 101)
    model.gate.set()
    await asyncio.gather(first, large, small)
    assert [ids[0] for ids in model.computed].index(999) < 20


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
    def short(batch: object) -> Any:
        return np.zeros((0, 1))

    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model)
    intake.lane.forward = short
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
        await score(intake, text(2 + n, NAN), text(2 + n, BAD))
    assert intake.lane.failure is not None
    await score(intake, text(2, BAD), text(2, 3))
    assert intake.lane.failure is None


async def test_models_share_a_device_and_a_batch_holds_one_of_them(devices: Devices, seen: Seen) -> None:
    model, other = FakeModel(seconds=0.005), FakeModel(seconds=0.005)
    one, two = opened(devices, model, name="one", max_batch_tokens=8), opened(devices, other, name="two")
    two.lane.max_batch_tokens = 8
    other.gate.set()
    first = await busy(one, model)
    many = score(one, *[text(8, 100 + n) for n in range(20)])
    await queued(one, 20)
    few = score(two, *[text(8, 100 + n) for n in range(5)])
    await queued(two, 5)
    model.gate.set()
    await asyncio.gather(first, many, few)
    order = [name for name, _ in seen.batches]
    assert [order.count("one"), order.count("two")] == [21, 5]
    assert order.index("two") <= 3
    assert order[:14].count("two") >= 4


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


def test_a_batch_takes_the_head_and_its_nearest_lengths() -> None:
    works = [
        Work(Rendered(np.zeros(length, dtype=np.int32), 0, None), Priority.ROLLOUT, 0, order)
        for order, length in enumerate([2000, 10, 1990, 12, 2010, 3000])
    ]
    batch = choose(works, by_priority, 9000)
    assert [work.tokens for work in batch] == [2000, 1990, 2010]  # 10 would be padding, 3000 over the limit
