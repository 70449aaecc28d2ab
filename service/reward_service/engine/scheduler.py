"""One queue in front of blocking models, and two threads: one computes, one prepares what is computed next."""

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from reward_service.engine.answers import Answered, Computed, deliver
from reward_service.engine.computing import compute
from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.forward import Forward, Pause
from reward_service.engine.lanes import Batch, Lane, Outputs
from reward_service.engine.pace import Speed
from reward_service.engine.picking import Picking, Running
from reward_service.engine.rendering import Rendered
from reward_service.engine.waiting import Waiter, Work
from reward_service.errors import DeadlineExceeded, EngineFailed, ServiceError
from reward_service.telemetry.context import current_request_id, working_for_batch

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.002
"""A pause that finds nothing to compute is not followed by another look for so long."""


NAMED_REQUESTS = 8


class Observer(Protocol):
    """Told of what a device does, on its thread."""

    def on_batch(self, model: str, *, items: int, tokens: int, computed_tokens: int, seconds: float) -> None:
        """A batch of `items` distinct items is done; `seconds` are its own, without pauses.

        `computed_tokens` are with padding, and a prefix that items share counts once.
        """

    def on_spelled(self, model: str) -> None:
        """A conversation spells special tokens of the model, which were read as plain text; on any thread."""


class DeviceThread:
    """Computes the work of all models of one device, a batch of one model at a time.

    A batch starts when the device is free and takes what waits then; one that is full already is prepared while
    another is computed. A long batch is paused for short ones. `submit`, `open` and `close` belong to the event loop
    on which the first lane was opened.
    """

    def __init__(self, device: str, observer: Observer | None = None, parts: Callable[[], int] = lambda: 0) -> None:
        self.device = device
        self._observer = observer
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # for the thread that computes
        self._full = threading.Condition(self._lock)  # for the thread that prepares
        self._picking = Picking(self._drop, parts)
        self._speeds: dict[str, Speed] = {}
        self._running: Running | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._closing = False

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The models before the device."""
        return tuple(self._picking.lanes)

    def open(self, model: str, forward: Forward, max_batch_tokens: int) -> Lane:
        """A lane for a model; the threads start with the first."""
        lane = Lane(model, forward, max_batch_tokens)
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._picking.lanes.append(lane)
        if not self._threads:
            self._start("device", self._compute_batches)
            self._start("ahead", self._prepare_batches)
        return lane

    def shut(self, lane: Lane) -> None:
        """Takes a lane away; nothing may wait in it any more."""
        with self._lock:
            self._picking.lanes.remove(lane)

    def tokens_per_s(self, model: str) -> float:
        """How fast a model computes what waits; 0 before its first batch."""
        speed = self._speeds.get(model)
        return 0.0 if speed is None else speed.tokens_per_s

    async def close(self) -> None:
        """Finishes what waits, then stops the threads."""
        with self._lock:
            self._closing = True
            self._work.notify()
            self._full.notify()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def submit(
        self, lane: Lane, rendered: Rendered, *, priority: Priority, deadline: float, ahead: int
    ) -> "asyncio.Future[Estimate | ItemError]":
        """Queues an item; an equal one that waits or is being computed answers both.

        `ahead` counts the tokens that the same request has queued before, so that requests take turns. Cancelling the
        future takes the item out, unless someone else waits for it too.
        """
        answer: asyncio.Future[Estimate | ItemError] = asyncio.get_running_loop().create_future()
        waiter = Waiter(answer, deadline, time.monotonic(), rendered.response_tokens, current_request_id())
        with self._lock:
            work = self._picking.add(lane, rendered, priority, ahead)
            work.waiters[answer] = waiter
            self._work.notify()
            if self._running is not None and self._picking.may_be_full(lane, priority):
                self._full.notify()
        answer.add_done_callback(functools.partial(self._leave, lane, work))
        return answer

    def together(self) -> contextlib.AbstractContextManager[object]:
        """What is submitted until the end of the block is there at once: no batch starts with a part of it."""
        return self._lock

    def _leave(self, lane: Lane, work: Work, answer: "asyncio.Future[Estimate | ItemError]") -> None:
        if answer.cancelled():
            with self._lock:
                work.waiters.pop(answer, None)
                if not work.waiters and work.place is not None:
                    lane.waiting.remove(work)

    def _start(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=f"{name}-{self.device}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _compute_batches(self) -> None:
        while (running := self._next()) is not None:
            self._serve(running, functools.partial(self._pause, running))
            del running  # an idle thread holds nothing

    def _next(self) -> Running | None:
        with self._lock:
            self._running = None
            while (batch := self._picked(self._picking.next)) is None:
                if self._closing:
                    return None
                self._work.wait()
            while batch.preparing:
                self._work.wait()
            self._running = Running(batch, time.monotonic())
            self._full.notify()
            return self._running

    def _prepare_batches(self) -> None:
        while (batch := self._next_full()) is not None:
            try:
                batch.prepared = (batch.lane.forward.prepare([work.rendered for work in batch.works]),)
            except Exception:  # it will fail again, and be halved, when it is its turn
                log.debug("a batch of model %s could not be prepared ahead", batch.lane.model, exc_info=True)
            with self._lock:
                batch.preparing = False
                self._work.notify()
            del batch

    def _next_full(self) -> Batch | None:
        with self._lock:
            while not self._closing:
                # Behind a long batch nothing is picked: short ones are computed in its pauses.
                if self._running is not None and not self._running.batch.long:
                    batch = self._picked(self._picking.full)
                    if batch is not None:
                        batch.preparing = True
                        return batch
                self._full.wait()
            return None

    def _picked(self, pick: Callable[[float], Batch | None]) -> Batch | None:
        """What `pick` chooses. A failure to choose is one of everything that waits; the thread goes on without it."""
        try:
            return pick(time.monotonic())
        except Exception as error:
            log.exception("no batch could be chosen on %s", self.device)
            failed = EngineFailed(f"no batch could be chosen: {type(error).__name__}: {error}")
            self._answer([(work, ItemError(failed)) for work in self._picking.clear(failed)])
            return None

    def _pause(self, running: Running) -> None:
        """Computes short batches while a long one stands still; whatever goes wrong here is not that one's affair."""
        if not self._picking.waiting or time.monotonic() - running.looked < LOOK_EVERY_S:
            return
        try:
            while (nested := self._within(running)) is not None:
                self._serve(nested, _go_on)
                running.paused_s += time.monotonic() - nested.started
        except Exception:
            log.exception("no batch could be computed in a pause of model %s", running.batch.lane.model)
        running.looked = time.monotonic()

    def _within(self, running: Running) -> Running | None:
        with self._lock:
            batch = self._picking.within(running, time.monotonic())
        return None if batch is None else Running(batch, time.monotonic())

    def _serve(self, running: Running, pause: Pause) -> None:
        with working_for_batch(functools.partial(self._requests_of, running.batch)):
            self._serve_batch(running, pause)

    def _serve_batch(self, running: Running, pause: Pause) -> None:
        batch = running.batch
        try:
            outputs = compute(batch.lane.forward, [work.rendered for work in batch.works], pause, batch.prepared)
            self._finish(running, outputs)
        except Exception as error:  # the thread outlives whatever goes wrong with a batch
            log.exception("a batch of model %s failed", batch.lane.model)
            failed = EngineFailed(f"the batch failed: {type(error).__name__}: {error}")
            with self._lock:
                batch.leave()
                batch.lane.note([failed])
            self._answer([(work, ItemError(failed)) for work in batch.works])

    def _requests_of(self, batch: Batch) -> list[str]:
        """The requests that wait for a batch, for a log line; the first of them are enough to find it by."""
        with self._lock:
            waiting = [waiter.request_id for work in batch.works for waiter in work.waiters.values()]
        return list(dict.fromkeys(name for name in waiting if name))[:NAMED_REQUESTS]

    def _finish(self, running: Running, outputs: Sequence[Outputs]) -> None:
        batch, now = running.batch, time.monotonic()
        seconds, tokens = running.own_s(now), sum(work.tokens for work in batch.works)
        answered = [
            (work, _answer_of(output, borne, running, seconds))
            for work, output, borne in zip(batch.works, outputs, batch.borne, strict=True)
        ]
        with self._lock:
            batch.leave()
            batch.charge(seconds, outputs)
            speed = self._speeds.setdefault(batch.lane.model, Speed())
            whole = running is self._running  # not a short one that was computed in a pause
            speed.learn(tokens, seconds, busy=whole and bool(batch.lane.waiting))
        if self._observer is not None:
            self._observer.on_batch(
                batch.lane.model,
                items=len(batch.works),
                tokens=tokens,
                computed_tokens=batch.computed_tokens,
                seconds=seconds,
            )
        self._answer(answered)

    def _drop(self, works: Sequence[Work]) -> None:
        late = ItemError(DeadlineExceeded("the time that the request allowed was over before the item was computed"))
        self._answer([(work, late) for work in works])

    def _answer(self, answered: Answered) -> None:
        if answered and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(deliver, answered)


def _answer_of(outputs: Outputs, borne: int, running: Running, seconds: float) -> Computed | ItemError:
    if isinstance(outputs, ServiceError):
        return ItemError(outputs)
    return Computed(outputs, borne, running.started, seconds, running.paused_s)


def _go_on() -> None:
    """The pause of a batch that is computed in a pause."""
