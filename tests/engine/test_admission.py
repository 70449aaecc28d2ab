"""What may enter a device's queue, with a fake model."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from reward_service.engine.admission import Account, slices
from reward_service.engine.devices import Devices
from reward_service.engine.doors import Arrival
from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.intake import Intake, Result
from reward_service.errors import DeadlineExceeded, Overloaded, TooLarge
from tests.engine.fakes import FakeModel, opened, text, until

BUDGET = 400


@pytest.fixture
async def devices() -> AsyncIterator[Devices]:
    made = Devices(max_queued_tokens=BUDGET)
    yield made
    await made.close()


def score(
    intake: Intake, *sizes: int, word: int = 1, admitted: bool = False, within_s: float = 30
) -> "asyncio.Task[list[Result]]":
    items = [text(size, word * 1000 + index) for index, size in enumerate(sizes)]
    deadline = time.monotonic() + within_s
    return asyncio.create_task(intake.score(items, priority=Priority.ROLLOUT, deadline=deadline, admitted=admitted))


def arrival(tokens: int) -> Arrival:
    return Arrival(key=tokens, model="m", tokens=tokens, first=tokens, left_s=30)


async def held(devices: Devices, tokens: int) -> None:
    await until(lambda: devices.get("fake").queued_tokens >= tokens)


async def test_a_request_larger_than_the_budget_enters_in_slices_and_finishes(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=100)
    task = score(intake, *[10] * 200)
    await asyncio.to_thread(model.started.wait, 30)
    await asyncio.sleep(0.05)
    assert devices.get("fake").queued_tokens <= BUDGET // 2
    model.gate.set()
    results = await task
    assert [float(result.outputs[0]) for result in results if isinstance(result, Estimate)] == list(range(1000, 1200))
    assert devices.get("fake").queued_tokens == 0


async def test_without_room_the_answer_says_when_to_come_back(devices: Devices) -> None:
    model = FakeModel(seconds=0.02)
    model.gate.set()
    intake = opened(devices, model, max_batch_tokens=100)
    await score(intake, 300)  # so fast, also if the machine stood still meanwhile, that only room is lacking
    model.gate.clear()
    many = [score(intake, 100, word=n) for n in range(2, 10)]
    await asyncio.sleep(0.1)
    refused = [task for task in many if task.done()]
    assert 1 <= len(refused) < len(many)
    with pytest.raises(Overloaded) as caught:
        await refused[0]
    assert caught.value.retry_after_s >= 1.0
    model.gate.set()
    for task in set(many) - set(refused):
        assert isinstance((await task)[0], Estimate)
    await score(intake, 100)


async def test_what_belongs_to_a_request_that_is_inside_waits_for_room(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    first = score(intake, BUDGET)
    await asyncio.to_thread(model.started.wait, 30)
    with pytest.raises(Overloaded):
        await score(intake, 2, word=2)
    second = score(intake, 2, word=2, admitted=True)
    (late,) = await score(intake, 2, word=3, admitted=True, within_s=0.05)
    assert isinstance(late, ItemError)
    assert isinstance(late.error, DeadlineExceeded)
    assert not second.done()
    model.gate.set()
    for task in (first, second):
        assert isinstance((await task)[0], Estimate)
    assert devices.get("fake").queued_tokens == 0


async def test_requests_inside_never_wait_for_each_other_s_room_for_ever() -> None:
    devices = Devices(max_queued_tokens=8)
    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model)
    sizes = [[1 + (n + m) % 8 for m in range(6)] for n in range(60)]
    tasks = [score(intake, *each, word=n, admitted=True) for n, each in enumerate(sizes)]
    for task in tasks:
        assert all(isinstance(result, Estimate) for result in await task)
    assert devices.get("fake").queued_tokens == 0
    await devices.close()


async def test_only_an_item_larger_than_the_whole_budget_is_too_large(devices: Devices) -> None:
    model = FakeModel()
    model.gate.set()
    intake = opened(devices, model)
    good, bad = await score(intake, 300, BUDGET + 1)
    assert isinstance(good, Estimate)
    assert isinstance(bad, ItemError)
    assert isinstance(bad.error, TooLarge)
    with pytest.raises(TooLarge):
        await score(intake, BUDGET + 1)


async def test_an_item_of_absurd_size_is_refused_before_it_is_rendered(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    with pytest.raises(TooLarge, match="bytes"):
        await score(intake, 64 * BUDGET)
    assert model.batches == []


async def test_a_request_that_leaves_gives_its_room_back(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model)
    task = score(intake, *[10] * 200)
    await held(devices, 50)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert devices.get("fake").queued_tokens == 0
    model.gate.set()


async def test_who_waits_for_room_goes_before_newcomers_and_may_leave() -> None:
    account = Account(100, lambda _: 0.0)
    account.enter(arrival(80))
    first, second = asyncio.create_task(account.wait(50)), asyncio.create_task(account.wait(10))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        account.enter(arrival(1))
    first.cancel()
    await asyncio.wait([first, second])
    assert account.held == 90
    account.enter(arrival(10))
    account.release(100)
    assert account.held == 0


async def test_a_grant_that_its_caller_no_longer_takes_is_given_back() -> None:
    account = Account(100, lambda _: 0.0)
    account.enter(arrival(100))
    for release_first in (True, False):
        waits = asyncio.create_task(account.wait(60))
        await asyncio.sleep(0)
        if release_first:
            account.release(100)
        waits.cancel()
        if not release_first:
            account.release(100)
        await asyncio.wait([waits])
        assert account.held == 0
        account.enter(arrival(100))


def test_slices_hold_at_least_one_item_and_about_the_limit() -> None:
    cut = list(slices(enumerate([5, 5, 5, 50, 1, 1]), 10))
    assert cut == [([0, 1], 10), ([2], 5), ([3], 50), ([4, 5], 2)]


async def test_large_requests_leave_half_of_the_room_to_others(devices: Devices) -> None:
    model = FakeModel()
    intake = opened(devices, model, max_batch_tokens=100)
    large = [score(intake, *[10] * 200, word=n + 1) for n in range(3)]
    await asyncio.to_thread(model.started.wait, 30)
    await asyncio.sleep(0.05)
    assert devices.get("fake").queued_tokens <= BUDGET // 2
    small = score(intake, 50, word=9)
    await held(devices, BUDGET // 2)
    model.gate.set()
    assert isinstance((await small)[0], Estimate)
    assert not any(task.done() for task in large)
    for task in large:
        assert all(isinstance(result, Estimate) for result in await task)
    account = devices.get("fake").account
    assert (account.held, account.parts, account.work_s) == (0, 0, 0.0)


async def test_what_a_large_request_brings_yet_counts_as_work(devices: Devices) -> None:
    model = FakeModel(seconds=0.01)
    model.gate.set()
    intake = opened(devices, model, max_batch_tokens=100)
    await asyncio.gather(*(score(intake, 30, word=n) for n in range(8)))
    model.gate.clear()
    task = score(intake, *[10] * 2000, word=50)
    await held(devices, 10)
    account, speed = devices.get("fake").account, devices.get("fake").thread.tokens_per_s("m")
    work = account.work_s * speed
    task.cancel()
    await asyncio.wait([task])
    model.gate.set()
    assert work == pytest.approx(20_000, rel=0.8)
    assert (account.held, account.parts, account.work_s) == (0, 0, 0.0)


async def test_a_large_request_is_not_starved_by_small_ones(devices: Devices) -> None:
    model = FakeModel(seconds=0.002)
    model.gate.set()
    intake = opened(devices, model, max_batch_tokens=20)
    done = asyncio.Event()
    served = 0

    async def keep_asking(number: int) -> None:
        nonlocal served
        word = 0
        while not done.is_set():
            word += 1
            await score(intake, 10, word=10_000 * number + word, within_s=300)
            served += 1

    small = [asyncio.create_task(keep_asking(number + 1)) for number in range(8)]
    await until(lambda: served > 20)
    before = served
    large = await score(intake, *[10] * 100, word=7, within_s=300)
    done.set()
    await asyncio.gather(*small)
    assert all(isinstance(result, Estimate) for result in large)
    assert 50 <= served - before <= 400  # both have got on: the large one with about half of the device


async def test_models_of_one_device_whose_requests_wait_for_its_room_all_finish() -> None:
    devices = Devices(max_queued_tokens=64)
    model, other = FakeModel(), FakeModel()
    model.gate.set()
    other.gate.set()
    intakes = [opened(devices, one, name=name, max_batch_tokens=16) for name, one in (("a", model), ("b", other))]
    tasks = [
        score(intakes[n % 2], *[1 + (n + m) % 16 for m in range(100)], word=n + 1, admitted=n % 4 > 0)
        for n in range(16)
    ]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    answered = [result for result in results if isinstance(result, list)]
    assert len(answered) >= 12
    assert all(isinstance(one, Estimate) for result in answered for one in result)
    assert devices.get("fake").queued_tokens == 0
    await devices.close()
