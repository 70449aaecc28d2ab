"""Which batch a device computes next: rollouts first, models in turn, now and then the oldest. No threads in here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reward_service.engine.batching import borne, choose, computed_tokens, front
from reward_service.engine.engine import Priority
from reward_service.engine.lanes import Batch, Lane
from reward_service.engine.rendering import Rendered
from reward_service.engine.waiting import Work
from reward_service.errors import EngineFailed

OLDEST_EVERY = 8
"""Every so many batches the oldest work goes first, so that nothing waits for ever behind higher priorities."""
SHORT_SHARE = 4
"""A batch of the same priority is paused for those that take at most this part (a quarter) of its time."""
PAUSED_PER_OWN = 2
"""A batch is paused for at most so many times the time that it has had itself: two thirds of the whole."""
GAIN_PER_LOSS = 2
"""A pause must gain so many times what it costs: times are estimates, and a batch of equals is not to be broken up."""
GLANCE_ITEMS = 64
"""So many waiting items are looked at in a pause, which holds the device up."""


@dataclass(slots=True, eq=False)
class Running:
    """A batch that is being computed since `started`; `paused_s` of that went to other batches.

    `looked` is when a pause last looked for them.
    """

    batch: Batch
    started: float
    paused_s: float = 0.0
    looked: float = 0.0

    @property
    def priority(self) -> Priority:
        """That of its most urgent item, also of one that an equal item has made more urgent since."""
        return min(work.priority for work in self.batch.works)

    @property
    def expected_s(self) -> float:
        """How long it takes without pauses, as far as is known by now."""
        return self.batch.lane.pace.expect(self.batch.computed_tokens, self.batch.longest)

    def own_s(self, now: float) -> float:
        """Time that it has had itself."""
        return now - self.started - self.paused_s

    def left_s(self, now: float) -> float:
        """Time that it probably needs yet; a batch that takes longer than expected is never nearly done."""
        return max(self.expected_s - self.own_s(now), self.expected_s / 8)

    def room_s(self, now: float) -> float:
        """How long it may be paused now."""
        return PAUSED_PER_OWN * self.own_s(now) - self.paused_s


class Picking:
    """The lanes of a device and at most one batch per priority that was picked ahead.

    `drop` is told of work that nobody waits for any more, `parts` says how many requests come in parts now. Used by
    one thread at a time.
    """

    def __init__(self, drop: Callable[[Sequence[Work]], None], parts: Callable[[], int] = lambda: 0) -> None:
        self.lanes: list[Lane] = []
        self._drop = drop
        self._parts = parts
        self._ahead: list[Batch] = []
        self._orders = self._batches = 0
        self._clock_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be computed."""
        return bool(self._ahead) or any(lane.waiting for lane in self.lanes)

    def add(self, lane: Lane, rendered: Rendered, priority: Priority, ahead: int) -> Work:
        """The work of an item: that of an equal one, or new work at the end of the queue."""
        key, turn = rendered.key, lane.turn + ahead
        if (work := lane.waiting.get(key)) is not None:
            lane.waiting.advance(work, priority, turn)
        elif (work := lane.computing.get(key)) is not None:
            self._hasten(work, priority)
        else:
            if not lane.waiting:  # a lane that was idle does not claim the time that it left to others
                lane.served_s = max(lane.served_s, self._clock_s)
            work = Work(rendered, priority, turn, self._orders)
            lane.waiting.add(work)
            self._orders += 1
        return work

    def may_be_full(self, lane: Lane, priority: Priority) -> bool:
        """Whether it is worth asking `full` after work of that priority has come."""
        enough = lane.waiting.tokens >= max(lane.looks_at, lane.max_batch_tokens)
        return enough and all(batch.priority > priority for batch in self._ahead)

    def next(self, now: float) -> Batch | None:
        """What the free device computes; None when nothing waits."""
        while self.waiting:
            oldest = (self._batches + 1) % OLDEST_EVERY == 0
            batch = self._oldest(now) if oldest else self._most_urgent(now)
            if batch is not None:
                self._batches += 1
                return batch
        return None

    def full(self, now: float) -> Batch | None:
        """The batch that will be next, while another runs, if it has no room for latecomers; it is kept for `next`."""
        for lane in self._by_share():
            if lane.waiting.tokens < max(lane.looks_at, lane.max_batch_tokens):
                return None
            if any(batch.priority <= lane.urgency for batch in self._ahead):
                return None
            window, works = self._chosen(lane, lane.waiting.in_rank(), now)
            if works and len(works) == len(lane.waiting):
                lane.looks_at = lane.waiting.tokens + lane.max_batch_tokens // 4
                return None
            if works:
                lane.turn = max(lane.turn, window[0].turn)
                self._ahead.append(batch := self._take(lane, works))
                return batch
        return None

    def within(self, running: Running, now: float) -> Batch | None:
        """A short batch for which a running one is worth pausing; None when there is none.

        Rollouts pause jobs. Of the same priority the time that the short ones gain must be well more than what the
        paused ones lose, all items counted.
        """
        priority, room_s = running.priority, running.room_s(now)
        for batch in self._ahead:
            if batch.priority < priority and batch.expected_s <= room_s and not (batch.preparing or batch.long):
                return self._from_ahead(batch, now)
        for lane in self._by_share():
            limit_s = room_s if lane.urgency < priority else min(room_s, running.expected_s / SHORT_SHARE)
            works = self._short(lane, priority, limit_s, now)
            if not works:
                continue
            tokens, longest = computed_tokens(lane.forward.layout, works), max(work.tokens for work in works)
            gained = len(works) * running.left_s(now)
            lost = len(running.batch.works) * lane.pace.expect(tokens, longest)
            if works[0].priority < priority or gained > GAIN_PER_LOSS * lost:
                return self._take(lane, works)
        return None

    def clear(self, error: EngineFailed) -> list[Work]:
        """Everything that waits or was picked ahead, which leaves the queue; its lanes have failed."""
        lost = [work for batch in self._ahead for work in batch.works]
        failed = {batch.lane for batch in self._ahead} | {lane for lane in self.lanes if lane.waiting}
        for batch in self._ahead:
            batch.leave()
        self._ahead = []
        for lane in failed:
            lost += lane.waiting.clear()
            lane.looks_at = 0
            lane.fail(error)
        return lost

    def _hasten(self, work: Work, priority: Priority) -> None:
        """An equal item has come for work that is computed or picked ahead: its batch becomes as urgent."""
        work.priority = min(work.priority, priority)
        for batch in self._ahead:
            if batch.priority > priority and work in batch.works:
                batch.priority = priority

    def _short(self, lane: Lane, priority: Priority, limit_s: float, now: float) -> list[Work]:
        """The next batch of a lane that takes no more than so many seconds, of work that is as urgent at least."""
        window = []
        for _, work in zip(range(GLANCE_ITEMS), lane.waiting.in_rank(), strict=False):
            if work.priority > priority:
                break
            fits = lane.pace.expect(work.tokens, work.tokens) <= limit_s
            if fits and work.tokens * 2 <= lane.max_batch_tokens and work.wanted(now):
                window.append(work)
        if not window or (rate := lane.pace.rate(window[0].tokens)) is None:
            return []
        return choose(lane.forward.layout, window, min(lane.max_batch_tokens, int(limit_s / rate)))

    def _most_urgent(self, now: float) -> Batch | None:
        ahead = min(self._ahead, key=lambda batch: batch.priority, default=None)
        for lane in self._by_share():
            if ahead is not None and ahead.priority <= lane.urgency:
                break
            window, works = self._chosen(lane, lane.waiting.in_rank(), now)
            if works:
                lane.turn = max(lane.turn, window[0].turn)
                return self._take(lane, works)
        return self._from_ahead(ahead, now)

    def _oldest(self, now: float) -> Batch | None:
        ahead = min(self._ahead, key=lambda batch: batch.oldest, default=None)
        for lane in sorted((lane for lane in self.lanes if lane.waiting), key=lambda lane: lane.oldest):
            if ahead is not None and ahead.oldest < lane.oldest:
                break
            _, works = self._chosen(lane, lane.waiting.in_age(), now)
            if works:
                return self._take(lane, works)
        return self._from_ahead(ahead, now)

    def _by_share(self) -> list[Lane]:
        """Models with rollouts first; among them the one that has had the least time."""
        return sorted((lane for lane in self.lanes if lane.waiting), key=lambda lane: (lane.urgency, lane.served_s))

    def _chosen(self, lane: Lane, works: Iterator[Work], now: float) -> tuple[list[Work], list[Work]]:
        """The window of a lane and its next batch; both empty when nobody waits for any of its work."""
        window, unwanted = front(works, lane.max_batch_tokens, now)
        for work in unwanted:
            lane.waiting.remove(work)
        self._drop(unwanted)
        return window, choose(lane.forward.layout, window, lane.max_batch_tokens) if window else []

    def _take(self, lane: Lane, works: list[Work]) -> Batch:
        """Takes work out of the queue, once nothing can go wrong with it any more.

        Turns go on with half of what is computed, so that newcomers leave that half to the requests that come in parts.
        """
        self._clock_s = lane.served_s
        batch = self._batch(lane, works)
        for work in works:
            lane.waiting.remove(work)
        lane.looks_at = 0
        lane.turn += sum(work.tokens for work in works) // (2 * max(1, self._parts()))
        return batch

    def _batch(self, lane: Lane, works: list[Work]) -> Batch:
        """Charges the lane with what it will probably cost, so that the next choice counts it already."""
        tokens, longest = computed_tokens(lane.forward.layout, works), max(work.tokens for work in works)
        expected_s = lane.pace.expect(tokens, longest)
        priority = min(work.priority for work in works)
        batch = Batch(lane, works, borne(lane.forward.layout, works), tokens, expected_s, priority)
        lane.served_s += expected_s
        lane.computing.update((work.rendered.key, work) for work in works)
        return batch

    def _from_ahead(self, batch: Batch | None, now: float) -> Batch | None:
        """The batch, or what is still wanted of it, to be prepared again then; None when that is nothing."""
        if batch is None:
            return None
        unwanted = [work for work in batch.works if not work.wanted(now)]
        rest: Batch | None = batch
        if unwanted:
            batch.leave()
            wanted = [work for work in batch.works if work not in unwanted]
            rest = self._batch(batch.lane, wanted) if wanted else None
        self._ahead.remove(batch)
        self._drop(unwanted)
        return rest
