"""One queue and one device thread in front of blocking models."""

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.batching import choose, front, padded_tokens
from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.forward import Forward, run
from reward_service.engine.rendering import Key, Rendered
from reward_service.engine.waiting import Waiter, Waiting, Work
from reward_service.errors import DeadlineExceeded, EngineFailed, NotFinite, ServiceError

log = logging.getLogger(__name__)

Outputs = NDArray[np.float64] | ServiceError

FAILING_BATCHES = 3
"""A model is out of order after so many batches in a row that failed as a whole."""
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
    waiting: Waiting = field(default_factory=Waiting)
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
        """Counts batches in which everything failed; NaN is an answer of a device that works."""
        failures = [one.detail for one in outputs if isinstance(one, EngineFailed)]
        if len(failures) < len(outputs):
            self._failed_batches = 0
        else:
            self._failed_batches += 1
            self._failed_at, self._last_error = time.monotonic(), failures[-1]


@dataclass(frozen=True, slots=True)
class Computed:
    """The outputs of a piece of work, when its batch started and how long it took."""

    outputs: NDArray[np.float64]
    started: float
    seconds: float

    def estimate(self, work: Work, waiter: Waiter, tokens_computed: int) -> Estimate:
        """What one of its waiters is told."""
        return Estimate(
            outputs=self.outputs,
            tokens=work.tokens,
            tokens_computed=tokens_computed,
            response_tokens=waiter.response_tokens,
            queue_s=max(0.0, self.started - waiter.since),
            compute_s=self.seconds,
        )


Answered = Sequence[tuple[Work, Computed | ItemError]]


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
            key, turn = rendered.key, lane.turn + ahead
            if (work := lane.waiting.get(key)) is not None:
                lane.waiting.advance(work, priority, turn)
            elif (work := lane.computing.get(key)) is None:
                work = self._enqueue(lane, Work(rendered, priority, turn, self._orders))
            work.waiters[answer] = waiter
            self._state.notify()
        answer.add_done_callback(functools.partial(self._leave, lane, work))
        return answer

    def _leave(self, lane: Lane, work: Work, answer: "asyncio.Future[Estimate | ItemError]") -> None:
        if answer.cancelled():
            with self._state:
                work.waiters.pop(answer, None)
                if not work.waiters and work.place is not None:
                    lane.waiting.remove(work)

    def _enqueue(self, lane: Lane, work: Work) -> Work:
        if not lane.waiting:  # a lane that was idle does not claim the time that it left to others
            lane.served_s = max(lane.served_s, self._clock_s)
        lane.waiting.add(work)
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
            self._answer([(work, failed) for work in batch])

    def _next(self) -> tuple[Lane, list[Work]] | None:
        with self._state:
            while (picked := self._pick()) is None:
                if self._closing:
                    return None
                self._state.wait()
            return picked

    def _pick(self) -> tuple[Lane, list[Work]] | None:
        oldest = (self._batches + 1) % OLDEST_EVERY == 0
        for lane in sorted((lane for lane in self._lanes if lane.waiting), key=by_oldest if oldest else by_share):
            batch = self._take(lane, lane.waiting.in_age() if oldest else lane.waiting.in_rank())
            if batch:
                self._batches += 1
                self._clock_s = lane.served_s
                if not oldest:
                    lane.turn = max(lane.turn, batch[0].turn)
                return lane, batch
        return None

    def _take(self, lane: Lane, works: Iterator[Work]) -> list[Work]:
        """The next batch of a lane; empty when nobody waits for any of its work."""
        window, unwanted = front(works, lane.max_batch_tokens, time.monotonic())
        late = ItemError(DeadlineExceeded("the time that the request allowed was over before the item was computed"))
        self._answer([(work, late) for work in unwanted])
        batch = choose(window, lane.max_batch_tokens) if window else []
        for work in [*unwanted, *batch]:
            lane.waiting.remove(work)
        lane.computing.update((work.rendered.key, work) for work in batch)
        return batch

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
        self._answer(
            [(work, _answer_of(output, started, seconds)) for work, output in zip(batch, outputs, strict=True)]
        )

    def _measure(self, tokens: int, seconds: float) -> None:
        self._recent_tokens = 0.9 * self._recent_tokens + tokens
        self._recent_s = 0.9 * self._recent_s + seconds
        self.tokens_per_s = self._recent_tokens / max(self._recent_s, 1e-9)

    def _answer(self, answered: Answered) -> None:
        if answered and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_deliver, answered)


def by_share(lane: Lane) -> tuple[float, ...]:
    """Models with rollouts first; among them the one that has had the least time."""
    return (next(lane.waiting.in_rank()).priority, lane.served_s)


def by_oldest(lane: Lane) -> tuple[float, ...]:
    """The model whose work waits longest."""
    return (next(lane.waiting.in_age()).order,)


def compute(forward: Forward, batch: Sequence[Rendered]) -> list[Outputs]:
    """Outputs or error of each item. A batch that fails is halved until only the item that makes it fail is alone."""
    try:
        rows = run(forward, batch)
    except Exception as error:
        if len(batch) > 1:
            half = len(batch) // 2
            return [*compute(forward, batch[:half]), *compute(forward, batch[half:])]
        log.exception("the forward pass of an item of %d tokens failed", batch[0].tokens)
        return [EngineFailed(f"the model failed on this conversation: {type(error).__name__}: {error}")]
    return [row if np.isfinite(row).all() else _not_finite(row) for row in rows]


def _not_finite(row: NDArray[np.float64]) -> NotFinite:
    return NotFinite(f"the model gave {row.tolist()} for this conversation")


def _answer_of(outputs: Outputs, started: float, seconds: float) -> Computed | ItemError:
    return ItemError(outputs) if isinstance(outputs, ServiceError) else Computed(outputs, started, seconds)


def _deliver(answered: Answered) -> None:
    """On the event loop: answers who still waits. The first who is answered bears the tokens of an item."""
    for work, answer in answered:
        bears = work.tokens
        for waiter in [waiter for waiter in work.waiters.values() if not waiter.answer.done()]:
            waiter.answer.set_result(
                answer if isinstance(answer, ItemError) else answer.estimate(work, waiter, tokens_computed=bears)
            )
            bears = 0
