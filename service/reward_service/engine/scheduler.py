"""One queue and one device thread in front of blocking models."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.batching import Rank, Waiter, Work, by_age, by_priority, choose, padded_tokens
from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.rendering import Key, Rendered
from reward_service.errors import DeadlineExceeded, EngineFailed, NotFinite, ServiceError

log = logging.getLogger(__name__)

Forward = Callable[[Sequence[Rendered]], NDArray[np.float64]]
"""A blocking model: rendered items in, (items, labels) out; raises when it cannot. Called on the device thread only."""
Outputs = NDArray[np.float64] | ServiceError

FAILING_BATCHES = 3
"""A model is out of order after so many batches in a row without a single score."""
FAILURE_LASTS_S = 30.0
"""How long it is called so after the last of them: then traffic may come back and try it."""
OLDEST_EVERY = 8
"""Every so many batches the oldest work goes first, so that nothing waits for ever behind higher priorities."""


class Observer(Protocol):
    """Told of what a device does, on its thread."""

    def on_batch(self, model: str, *, items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """A batch of `items` distinct items is done."""


@dataclass(slots=True, eq=False)
class Lane:
    """One model's place before a device: its work that waits and its work that is being computed."""

    model: str
    forward: Forward
    max_batch_tokens: int
    waiting: dict[Key, Work] = field(default_factory=dict)
    computing: dict[Key, Work] = field(default_factory=dict)
    served_s: float = 0.0
    turn: int = 0
    _failed_batches: int = 0
    _failed_at: float = 0.0
    _last_error: str = ""

    @property
    def failure(self) -> str | None:
        """Why the model gives no scores now; None while it does."""
        recent = time.monotonic() - self._failed_at < FAILURE_LASTS_S
        return self._last_error if recent and self._failed_batches >= FAILING_BATCHES else None

    def note(self, outputs: Sequence[Outputs]) -> None:
        """Counts batches in which nothing could be scored."""
        errors = [one.detail for one in outputs if isinstance(one, ServiceError)]
        if len(errors) < len(outputs):
            self._failed_batches = 0
        else:
            self._failed_batches += 1
            self._failed_at, self._last_error = time.monotonic(), errors[-1]


class DeviceThread:
    """Computes the work of all models of one device, a batch of one model at a time.

    A batch starts when the device is free and takes what waits then. `submit`, `open` and `close` belong to the event
    loop on which the first lane was opened.
    """

    def __init__(self, device: str, observer: Observer | None = None) -> None:
        self.device = device
        self.tokens_per_s = 0.0
        self._observer = observer
        self._state = threading.Condition()
        self._lanes: list[Lane] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._orders = self._batches = 0
        self._clock_s = 0.0
        self._recent_tokens = self._recent_s = 0.0

    def open(self, model: str, forward: Forward, max_batch_tokens: int) -> Lane:
        """A lane for a model; the thread starts with the first."""
        lane = Lane(model, forward, max_batch_tokens)
        with self._state:
            self._loop = asyncio.get_running_loop()
            self._lanes.append(lane)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"device-{self.device}", daemon=True)
            self._thread.start()
        return lane

    def shut(self, lane: Lane) -> None:
        """Takes a lane away; nothing may wait in it any more."""
        with self._state:
            self._lanes.remove(lane)

    async def close(self) -> None:
        """Finishes what waits, then stops the thread."""
        with self._state:
            self._closing = True
            self._state.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def submit(
        self, lane: Lane, rendered: Rendered, *, priority: Priority, deadline: float, ahead: int
    ) -> "asyncio.Future[Estimate | ItemError]":
        """Queues an item; an equal one that waits or is being computed answers both.

        `ahead` counts the tokens that the same request has queued before, so that requests take turns. Cancelling the
        future takes the item out, unless someone else waits for it too.
        """
        answer: asyncio.Future[Estimate | ItemError] = asyncio.get_running_loop().create_future()
        waiter = Waiter(answer, deadline, time.monotonic(), rendered.response_tokens)
        with self._state:
            work = lane.waiting.get(rendered.key) or lane.computing.get(rendered.key)
            if work is None:
                work = self._enqueue(lane, Work(rendered, priority, lane.turn + ahead, self._orders))
            work.priority = min(work.priority, priority)
            work.turn = min(work.turn, lane.turn + ahead)
            work.waiters.append(waiter)
            self._state.notify()
        return answer

    def _enqueue(self, lane: Lane, work: Work) -> Work:
        if not lane.waiting:  # a lane that was idle does not claim the time that it left to others
            lane.served_s = max(lane.served_s, self._clock_s)
        lane.waiting[work.rendered.key] = work
        self._orders += 1
        return work

    def _run(self) -> None:
        while (picked := self._next()) is not None:
            self._serve_safely(*picked)
            del picked  # an idle thread holds nothing

    def _serve_safely(self, lane: Lane, batch: list[Work]) -> None:
        try:
            self._serve(lane, batch)
        except Exception as error:  # the thread outlives whatever goes wrong with a batch
            log.exception("a batch of model %s failed", lane.model)
            failed = ItemError(EngineFailed(f"the batch failed: {type(error).__name__}: {error}"))
            with self._state:
                lane.computing.clear()
                lane.note([failed.error])
            self._answer([(waiter, failed) for work in batch for waiter in work.waiters])

    def _next(self) -> tuple[Lane, list[Work]] | None:
        with self._state:
            while (picked := self._pick()) is None:
                if self._closing:
                    return None
                self._state.wait()
            return picked

    def _pick(self) -> tuple[Lane, list[Work]] | None:
        now = time.monotonic()
        for lane in self._lanes:
            self._drop_unwanted(lane, now)
        busy = [lane for lane in self._lanes if lane.waiting]
        if not busy:
            return None
        self._batches += 1
        oldest = self._batches % OLDEST_EVERY == 0
        rank: Rank = by_age if oldest else by_priority
        lane = min(busy, key=by_oldest if oldest else by_share)
        batch = choose(lane.waiting.values(), rank, lane.max_batch_tokens)
        self._clock_s = lane.served_s
        if not oldest:
            lane.turn = max(lane.turn, batch[0].turn)
        for work in batch:
            lane.computing[work.rendered.key] = lane.waiting.pop(work.rendered.key)
        return lane, batch

    def _drop_unwanted(self, lane: Lane, now: float) -> None:
        unwanted = [key for key, work in lane.waiting.items() if not work.wanted(now)]
        expired = [lane.waiting.pop(key) for key in unwanted]
        late = ItemError(DeadlineExceeded("the time that the request allowed was over before the item was computed"))
        self._answer([(waiter, late) for work in expired for waiter in work.waiters])

    def _serve(self, lane: Lane, batch: list[Work]) -> None:
        started = time.monotonic()
        outputs = compute(lane.forward, [work.rendered for work in batch])
        seconds = time.monotonic() - started
        lengths = [work.tokens for work in batch]
        with self._state:
            lane.computing.clear()
            lane.note(outputs)
            lane.served_s += seconds
            self._measure(sum(lengths), seconds)
        if self._observer is not None:
            self._observer.on_batch(
                lane.model,
                items=len(batch),
                tokens=sum(lengths),
                padded_tokens=padded_tokens(lengths),
                seconds=seconds,
            )
        computed = zip(batch, outputs, strict=True)
        self._answer([told for work, output in computed for told in answers(work, output, started, seconds)])

    def _measure(self, tokens: int, seconds: float) -> None:
        self._recent_tokens = 0.9 * self._recent_tokens + tokens
        self._recent_s = 0.9 * self._recent_s + seconds
        self.tokens_per_s = self._recent_tokens / max(self._recent_s, 1e-9)

    def _answer(self, answered: "list[tuple[Waiter, Estimate | ItemError]]") -> None:
        if answered and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_deliver, answered)


def by_share(lane: Lane) -> tuple[float, ...]:
    """Models with rollouts first; among them the one that has had the least time."""
    return (min(work.priority for work in lane.waiting.values()), lane.served_s)


def by_oldest(lane: Lane) -> tuple[float, ...]:
    """The model whose work waits longest."""
    return (min(work.order for work in lane.waiting.values()),)


def compute(forward: Forward, batch: Sequence[Rendered]) -> list[Outputs]:
    """Outputs or error of each item. A batch that fails is halved until only the item that makes it fail is alone."""
    try:
        rows = forward(batch)
    except Exception as error:
        if len(batch) > 1:
            half = len(batch) // 2
            return [*compute(forward, batch[:half]), *compute(forward, batch[half:])]
        log.exception("the forward pass of an item of %d tokens failed", batch[0].tokens)
        return [EngineFailed(f"the model failed on this conversation: {type(error).__name__}: {error}")]
    return [row if np.isfinite(row).all() else _not_finite(row) for row in rows]


def _not_finite(row: NDArray[np.float64]) -> NotFinite:
    return NotFinite(f"the model gave {row.tolist()} for this conversation")


def answers(
    work: Work, outputs: Outputs, started: float, seconds: float
) -> "list[tuple[Waiter, Estimate | ItemError]]":
    """What each waiter of a computed piece of work is told; the first one bears its tokens."""
    if isinstance(outputs, ServiceError):
        return [(waiter, ItemError(outputs)) for waiter in work.waiters]
    return [
        (
            waiter,
            Estimate(
                outputs=outputs,
                tokens=work.tokens,
                tokens_computed=work.tokens if waiter is work.waiters[0] else 0,
                response_tokens=waiter.response_tokens,
                queue_s=max(0.0, started - waiter.since),
                compute_s=seconds,
            ),
        )
        for waiter in work.waiters
    ]


def _deliver(answered: "list[tuple[Waiter, Estimate | ItemError]]") -> None:
    for waiter, result in answered:
        if not waiter.answer.done():
            waiter.answer.set_result(result)
