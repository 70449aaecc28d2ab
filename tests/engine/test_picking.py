"""Which batch is next, which is picked ahead and which runs in a pause: decisions, without threads."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.engine.engine import Priority
from reward_service.engine.forward import Layout
from reward_service.engine.lanes import Batch, Lane
from reward_service.engine.pace import Pace
from reward_service.engine.picking import OLDEST_EVERY, PAUSED_PER_OWN, Picking, Running
from reward_service.engine.rendering import Rendered
from reward_service.engine.waiting import Waiter, Work
from tests.engine.fakes import LayeredModel

ROLLOUT, JOB = Priority.ROLLOUT, Priority.JOB


class Queue:
    """The lanes of a device whose clock stands still at 0, and what was dropped."""

    def __init__(self) -> None:
        self.dropped: list[Work] = []
        self.picking = Picking(self.dropped.extend)
        self._words = 0

    def lane(self, name: str = "m", *, limit: int = 100, s_per_token: float = 0.001) -> Lane:
        lane = Lane(name, LayeredModel(layout=Layout.PACKED), limit)
        lane.pace.learn(1000, 10, 1000 * s_per_token)
        self.picking.lanes.append(lane)
        return lane

    def add(self, lane: Lane, tokens: int, priority: Priority = ROLLOUT, *, deadline: float = 60.0) -> Work:
        self._words += 1
        ids = np.full(tokens, self._words, dtype=np.int32)
        work = self.picking.add(lane, Rendered(ids, tokens - 1, None), priority, 0)
        answer = asyncio.get_running_loop().create_future()
        work.waiters[answer] = Waiter(answer, deadline, 0.0, None)
        return work

    def many(self, lane: Lane, count: int, tokens: int, priority: Priority = ROLLOUT) -> list[Work]:
        return [self.add(lane, tokens, priority) for _ in range(count)]

    def next(self) -> Batch:
        batch = self.picking.next(0.0)
        assert batch is not None
        return batch


def done(batch: Batch, seconds: float) -> None:
    batch.leave()
    batch.charge(seconds, [np.zeros(1)] * len(batch.works))


@pytest.fixture
async def queue() -> Queue:
    return Queue()


async def test_a_batch_is_picked_ahead_only_when_latecomers_would_find_no_room(queue: Queue) -> None:
    lane = queue.lane()
    works = queue.many(lane, 9, 10)
    assert queue.picking.full(0.0) is None
    works += queue.many(lane, 1, 10)
    assert queue.picking.full(0.0) is None  # full to the brim, but nothing would stay behind
    queue.many(lane, 3, 10)
    ahead = queue.picking.full(0.0)
    assert ahead is not None
    assert ahead.works == works
    queue.many(lane, 20, 10)
    assert queue.picking.full(0.0) is None  # one is enough
    assert queue.next() is ahead


async def test_a_rollout_is_not_held_behind_jobs_that_were_picked_ahead(queue: Queue) -> None:
    lane = queue.lane()
    queue.many(lane, 20, 10, JOB)
    jobs = queue.picking.full(0.0)
    assert jobs is not None
    rollout = queue.add(lane, 10)
    assert rollout in queue.next().works
    assert queue.next() is jobs


async def test_rollouts_are_picked_ahead_beside_jobs(queue: Queue) -> None:
    lane = queue.lane()
    queue.many(lane, 20, 10, JOB)
    jobs = queue.picking.full(0.0)
    queue.many(lane, 20, 10)
    rollouts = queue.picking.full(0.0)
    assert jobs is not None
    assert rollouts is not None
    assert [jobs.priority, rollouts.priority] == [JOB, ROLLOUT]
    assert queue.next() is rollouts


async def test_jobs_that_were_picked_ahead_become_as_urgent_as_an_equal_rollout(queue: Queue) -> None:
    lane = queue.lane()
    works = queue.many(lane, 20, 10, JOB)
    jobs = queue.picking.full(0.0)
    assert jobs is not None
    assert queue.picking.add(lane, works[0].rendered, ROLLOUT, 0) is works[0]
    queue.add(lane, 10)
    assert queue.next() is jobs


async def test_what_nobody_waits_for_any_more_leaves_a_batch_that_was_picked_ahead(queue: Queue) -> None:
    lane = queue.lane()
    works = queue.many(lane, 20, 10)
    ahead = queue.picking.full(0.0)
    assert ahead is not None
    ahead.prepared = (object(),)
    for work in works[1:10]:
        next(iter(work.waiters)).cancel()
    batch = queue.next()
    assert (batch.works, batch.borne, batch.prepared) == ([works[0]], [10], None)
    assert queue.dropped == works[1:10]
    assert list(lane.computing.values()) == [works[0]]


async def test_when_everybody_has_left_nothing_is_next(queue: Queue) -> None:
    lane = queue.lane()
    for work in queue.many(lane, 30, 10):
        next(iter(work.waiters)).cancel()
    assert queue.picking.full(0.0) is None
    assert queue.picking.next(0.0) is None
    assert not queue.picking.waiting


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Priority)), min_size=1, max_size=40), st.booleans())
async def test_everything_is_computed_once_under_any_arrivals(
    arrivals: Sequence[tuple[int, Priority]], prefetch: bool
) -> None:
    queue = Queue()
    lanes, added, computed = [queue.lane(str(n)) for n in range(2)], list[Work](), list[Work]()
    for number, (count, priority) in enumerate(arrivals):
        for index in range(count):
            added.append(queue.add(lanes[(number + index) % 2], 30 + 10 * index, priority))
        if prefetch:
            queue.picking.full(0.0)
        if number % 3 == 0 and (batch := queue.picking.next(0.0)) is not None:
            computed += batch.works
            done(batch, 0.1)
    while (batch := queue.picking.next(0.0)) is not None:
        computed += batch.works
        done(batch, 0.1)
    assert sorted(work.order for work in computed) == [work.order for work in added]
    assert queue.dropped == []
    assert not any(lane.computing or lane.waiting.tokens for lane in lanes)


@pytest.mark.parametrize("prefetch", [False, True])
async def test_a_job_waits_for_a_bounded_number_of_batches_under_a_flood_of_rollouts(
    queue: Queue, prefetch: bool
) -> None:
    lane = queue.lane()
    queue.many(lane, 25, 10)
    job = queue.add(lane, 10, JOB)
    for batches in range(10 * OLDEST_EVERY):
        queue.many(lane, 10, 10)
        if prefetch:
            queue.picking.full(0.0)
        batch = queue.next()
        if job in batch.works:
            assert batches < 4 * OLDEST_EVERY
            return
        done(batch, 0.1)
    pytest.fail("the job starved")


async def test_models_get_equal_time_however_long_their_batches_are(queue: Queue) -> None:
    quick, slow = queue.lane("quick"), queue.lane("slow", s_per_token=0.004)
    queue.many(quick, 1000, 10)
    queue.many(slow, 1000, 10)
    took = {"quick": 0.0, "slow": 0.0}
    for _ in range(60):
        queue.picking.full(0.0)
        batch = queue.next()
        seconds = {"quick": 0.1, "slow": 0.4}[batch.lane.model]
        took[batch.lane.model] += seconds
        done(batch, seconds)
    assert took["quick"] == pytest.approx(took["slow"], rel=0.2)


def running(queue: Queue, lane: Lane, *, own_s: float = 0.3, paused_s: float = 0.0) -> Running:
    """The next batch after it has had so much time of its own, at time 0."""
    return Running(queue.next(), -own_s - paused_s, paused_s)


async def test_a_long_item_is_paused_for_a_short_one_of_any_model(queue: Queue) -> None:
    lane, other = queue.lane(), queue.lane("other")
    queue.add(lane, 1000)
    long = running(queue, lane)
    assert queue.picking.within(long, 0.0) is None
    for each in (lane, other):
        short = queue.add(each, 20)
        batch = queue.picking.within(long, 0.0)
        assert batch is not None
        assert (batch.lane, batch.works) == (each, [short])


async def test_a_batch_of_many_is_not_paused_for_one_that_is_no_shorter_than_each_of_them(queue: Queue) -> None:
    lane = queue.lane(limit=1000)
    queue.many(lane, 50, 20)
    batch = running(queue, lane)
    queue.add(lane, 20)
    assert queue.picking.within(batch, 0.0) is None


async def test_a_long_item_is_not_paused_for_another_long_one_nor_for_jobs(queue: Queue) -> None:
    lane = queue.lane()
    queue.add(lane, 1000)
    long = running(queue, lane)
    queue.add(lane, 600)
    queue.add(lane, 10, JOB)
    assert queue.picking.within(long, 0.0) is None


async def test_jobs_are_paused_for_rollouts_also_for_a_batch_that_was_picked_ahead(queue: Queue) -> None:
    lane = queue.lane()
    queue.many(lane, 10, 10, JOB)
    jobs = running(queue, lane)
    queue.many(lane, 11, 10)
    ahead = queue.picking.full(0.0)
    assert queue.picking.within(jobs, 0.0) is ahead
    rest = queue.picking.within(jobs, 0.0)
    assert rest is not None
    assert len(rest.works) == 1


async def test_a_paused_batch_keeps_a_third_of_the_time(queue: Queue) -> None:
    lane = queue.lane(limit=1000)
    queue.add(lane, 10_000)
    queue.many(lane, 1000, 10)
    long = running(queue, lane, own_s=0.001)
    now, own_s = 0.0, 0.001
    for _ in range(100):
        while (batch := queue.picking.within(long, now)) is not None:
            assert batch.expected_s <= long.batch.expected_s / 4
            now += batch.expected_s
            long.paused_s += batch.expected_s
        assert long.own_s(now) == pytest.approx(own_s)
        assert long.paused_s <= PAUSED_PER_OWN * own_s + 1e-9
        now, own_s = now + 0.05, own_s + 0.05
    assert long.paused_s > own_s  # and the short ones have had most of it


def test_long_items_are_expected_to_cost_more_per_token() -> None:
    pace = Pace()
    assert pace.expect(100, 100) == 0
    pace.learn(4000, 400, 0.4)
    assert pace.expect(8000, 8000) == pytest.approx(0.8)
    pace.learn(8000, 8000, 2.4)
    assert pace.expect(8000, 8000) == pytest.approx(2.4)
    assert pace.expect(4000, 500) == pytest.approx(0.4)
