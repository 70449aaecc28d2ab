"""Batches that are prepared ahead and long ones that are paused, with a fake model that takes its time by layers."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.engine.rendering import Rendered
from tests.engine.fakes import BAD, LayeredModel, Seen, held_up, opened, queued, reached, score, shared, text, value


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def devices(seen: Seen) -> AsyncIterator[Devices]:
    made = Devices(max_queued_tokens=100_000, observer=seen)
    yield made
    await made.close()


async def test_a_short_item_does_not_wait_for_a_long_one(devices: Devices) -> None:
    model = LayeredModel()
    intake = opened(devices, model)
    await score(intake, text(20, 1))
    model.started.clear()
    long = score(intake, text(4000, 2))
    await reached(model.started)
    shorts = [score(intake, text(20, 10 + n)) for n in range(3)]
    assert [value((await one)[0]) for one in shorts] == [10, 11, 12]
    assert not long.done()
    model.gate.set()
    assert value((await long)[0]) == 2


async def test_the_time_of_a_pause_counts_once(devices: Devices, seen: Seen) -> None:
    model = LayeredModel()
    intake = opened(devices, model)
    await score(intake, text(200, 1))
    model.started.clear()
    started = time.monotonic()
    long = score(intake, text(4000, 2))
    await reached(model.started)
    for word in (10, 11, 12, 13):
        await score(intake, text(240, word))  # short enough to gain from a pause however long the machine takes
    model.gate.set()
    (estimate,) = await long
    elapsed = time.monotonic() - started
    seconds = {report["tokens"]: report["seconds"] for _, report in seen.batches}
    assert isinstance(estimate, Estimate)
    assert estimate.compute_s == seconds[4000]
    assert sum(report["seconds"] for _, report in seen.batches[1:]) <= elapsed
    assert estimate.queue_s + estimate.compute_s <= elapsed
    assert intake.lane.served_s == pytest.approx(sum(report["seconds"] for _, report in seen.batches))


async def test_a_model_waits_no_longer_for_another_one_s_long_item(devices: Devices) -> None:
    model, other = LayeredModel(), LayeredModel()
    one, two = opened(devices, model, name="one"), opened(devices, other, name="two")
    await score(one, text(20, 1))
    await score(two, text(20, 1))
    two.lane.pace = one.lane.pace  # they are equally fast, whatever the machine did meanwhile
    model.started.clear()
    long = score(one, text(4000, 2))
    await reached(model.started)
    assert value((await score(two, text(20, 3)))[0]) == 3
    assert not long.done()
    model.gate.set()
    await long


async def test_an_error_in_a_pause_belongs_to_its_items(devices: Devices) -> None:
    model = LayeredModel()
    intake = opened(devices, model)
    await score(intake, text(20, 1))
    model.started.clear()
    long = score(intake, text(4000, 2))
    await reached(model.started)
    (bad,) = await score(intake, text(20, BAD))
    assert isinstance(bad, ItemError)
    assert value((await score(intake, text(20, 4)))[0]) == 4
    assert not long.done()
    model.gate.set()
    assert value((await long)[0]) == 2


async def test_an_item_equal_to_a_paused_one_joins_it(devices: Devices) -> None:
    model = LayeredModel()
    intake = opened(devices, model)
    await score(intake, text(20, 1))
    model.started.clear()
    long = score(intake, text(4000, 2))
    await reached(model.started)
    await score(intake, text(20, 3))
    joined = score(intake, text(4000, 2))
    await score(intake, text(20, 4))
    await shared(intake, 2)
    model.gate.set()
    await asyncio.gather(long, joined)
    assert model.batches.count([2]) == 1
    assert not intake.lane.computing


async def test_rollouts_are_computed_while_jobs_are_paused(devices: Devices) -> None:
    model = LayeredModel()
    intake = opened(devices, model, max_batch_tokens=4000)
    await score(intake, text(20, 1))
    model.started.clear()
    async with held_up(devices):
        jobs = score(intake, *[text(400, 100 + n) for n in range(10)], priority=Priority.JOB)
        await queued(intake, 10)
    await reached(model.started)
    rollouts = score(intake, *[text(100, 200 + n) for n in range(5)])
    assert [value(result) for result in await rollouts] == [200, 201, 202, 203, 204]
    assert not jobs.done()
    model.gate.set()
    await jobs


async def test_the_next_batch_is_prepared_once_in_another_thread_while_one_is_computed(devices: Devices) -> None:
    class Slow(LayeredModel):
        def prepare(self, batch: Sequence[Rendered]) -> Sequence[Rendered]:
            time.sleep(0.02)  # longer than a batch takes to compute
            return super().prepare(batch)

    model = Slow()
    intake = opened(devices, model, max_batch_tokens=100)
    results = await score(intake, *[text(20, 100 + n) for n in range(50)])
    assert [value(result) for result in results] == [100 + n for n in range(50)]
    names = [name.split("-")[0] for name in model.prepared]
    assert len(names) == len(model.batches)
    assert names.count("ahead") > names.count("device")


async def test_a_batch_that_cannot_be_prepared_fails_by_item(devices: Devices) -> None:
    class Picky(LayeredModel):
        def prepare(self, batch: Sequence[Rendered]) -> Sequence[Rendered]:
            super().prepare(batch)
            if any(BAD in one.ids for one in batch):
                raise ValueError("cannot be packed")
            return batch

    model = Picky()
    intake = opened(devices, model, max_batch_tokens=100)
    items = [text(20, 100 + n) for n in range(20)]
    results = await score(intake, *items[:12], text(20, BAD), *items[12:])
    assert [isinstance(result, ItemError) for result in results].index(True) == 12
    assert [value(result) for index, result in enumerate(results) if index != 12] == [100 + n for n in range(20)]


async def test_items_that_share_a_prefix_bear_their_distinct_tokens(devices: Devices, seen: Seen) -> None:
    model = LayeredModel()
    intake = opened(devices, model)
    items = [text(30, 5), text(30, 5), *(Item(text=" ".join(["5"] * 30 + [str(n)] * 2)) for n in range(3))]
    async with held_up(devices):
        task = score(intake, *items)
        await queued(intake, 4)
    results = [result for result in await task if isinstance(result, Estimate)]
    assert sum(result.tokens_computed for result in results) == 30 + 3 * 2
    assert sum(result.tokens for result in results) == 30 + 30 + 3 * 32
    assert sum(report["computed_tokens"] for model_name, report in seen.batches if model_name == "m") == 36


async def test_close_finishes_what_was_picked_ahead(devices: Devices) -> None:
    model = LayeredModel()
    intake = opened(devices, model, max_batch_tokens=100)
    task = score(intake, *[text(20, 100 + n) for n in range(50)])
    await reached(model.started)
    await asyncio.gather(intake.close(), devices.close())
    assert len(await task) == 50
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("-fake")]
