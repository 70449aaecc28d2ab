"""Who is computed first, and with whom, with a fake model."""

import asyncio
import time

import numpy as np
import pytest

from reward_service.engine.batching import WINDOW_ITEMS, choose
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Priority
from reward_service.engine.forward import Layout
from reward_service.engine.picking import OLDEST_EVERY
from reward_service.engine.rendering import Rendered
from reward_service.engine.waiting import Work
from tests.engine.fakes import FakeModel, Seen, busy, opened, queued, reached, score, text, until


async def test_a_batch_respects_the_padded_token_limit(devices: Devices, seen: Seen) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=64)
    first = await busy(intake, model)
    tasks = [score(intake, text(1 + n % 30, 1000 + n)) for n in range(60)]
    await queued(intake, 60)
    model.gate.set()
    await asyncio.gather(first, *tasks)
    assert max(batch["computed_tokens"] for _, batch in seen.batches) <= 64


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


async def test_models_share_a_device_and_a_batch_holds_one_of_them(devices: Devices, seen: Seen) -> None:
    model, other = FakeModel(), FakeModel()
    one, two = opened(devices, model, name="one", max_batch_tokens=8), opened(devices, other, name="two")
    two.lane.max_batch_tokens = 8
    other.gate.set()
    first = await busy(one, model)
    many = score(one, *[text(8, 100 + n) for n in range(20)])
    await queued(one, 20)
    few = score(two, *[text(8, 100 + n) for n in range(5)])
    await queued(two, 5)
    one.lane.served_s += 100  # far more than its batches can take: the other's turn comes whatever they take
    model.gate.set()
    await asyncio.gather(first, many, few)
    order = [name for name, _ in seen.batches]
    assert [order.count("one"), order.count("two")] == [21, 5]
    assert order.index("two") <= 3
    assert order[:14].count("two") >= 4


def test_a_batch_takes_the_head_and_its_nearest_lengths() -> None:
    works = [
        Work(Rendered(np.zeros(length, dtype=np.int32), 0, None), Priority.ROLLOUT, 0, order)
        for order, length in enumerate([2000, 10, 1990, 12, 2010, 3000])
    ]
    batch = choose(Layout.PADDED, works, 9000)
    assert [work.tokens for work in batch] == [2000, 1990, 2010]  # 10 would be padding, 3000 over the limit


async def test_a_long_queue_is_not_searched_for_every_batch(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=16_384)
    first = await busy(intake, model)
    thread = devices.get("fake").thread
    asked: list[Work] = []
    rendered = [Rendered(np.array([n, n], dtype=np.int32), 1, None) for n in range(40_000)]
    deadline = time.monotonic() + 30
    answers = [
        thread.submit(intake.lane, one, priority=Priority(n % 2), deadline=deadline, ahead=0)
        for n, one in enumerate(rendered)
    ]

    def wanted(work: Work, now: float) -> bool:
        asked.append(work)
        return True

    monkeypatch.setattr(Work, "wanted", wanted)
    model.started.clear()
    model.gate.set()
    await reached(model.started)
    model.gate.clear()
    assert len(asked) <= 3 * (len(model.batches) + 1) * WINDOW_ITEMS  # picked ahead, they are asked again at the start
    assert all(ids[0] % 2 == 0 for ids in model.batches[1])
    for answer in answers:
        answer.cancel()
    await until(lambda: len(intake.lane.waiting) == 0)
    assert list(intake.lane.waiting.in_rank()) == []
    model.gate.set()
    await first
