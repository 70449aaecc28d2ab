"""Hands waiting items to the servers of a model: in small batches, to the least loaded, again where one failed."""

import asyncio
import contextlib
import heapq
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from reward_service.engine.admission import Account
from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.engine.hosted.description import Sendable
from reward_service.engine.hosted.fleet import Fleet
from reward_service.engine.hosted.link import Refused, Unavailable
from reward_service.engine.hosted.protocol import Row
from reward_service.engine.hosted.server import MOST_ITEMS, Miscounted, Server
from reward_service.engine.remote import RemoteDevice
from reward_service.engine.rendering import Rendered
from reward_service.errors import EngineFailed, InvalidRequest, NotFinite, ServiceError

log = logging.getLogger(__name__)

Result = Estimate | ItemError

MOST_TOKENS = 8192
MOST_FAILURES = 3
"""An item fails for good after so many calls that failed, those not counted that found no room."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""How long a server without room is left alone, unless it says how long."""


@dataclass(slots=True, eq=False)
class Wanted:
    """An item that somebody waits for; `limit` is how many items a call with it may have."""

    item: Sendable
    priority: Priority
    deadline: float
    answer: "asyncio.Future[Result]"
    since: float
    limit: int = MOST_ITEMS
    failures: int = 0
    refusals: int = 0

    @property
    def tokens(self) -> int:
        """As they are sent."""
        return self.item.outgoing.tokens


@dataclass(slots=True, eq=False)
class Trip:
    """Items that travel together."""

    server: Server
    batch: list[Wanted]
    task: "asyncio.Task[None] | None" = None
    started: float = field(default_factory=time.monotonic)

    def left(self, _: "asyncio.Future[Result]") -> None:
        """Closes the call once nobody waits for any of it."""
        if self.task is not None and all(one.answer.cancelled() for one in self.batch):
            self.task.cancel()


class Dispatcher:
    """The queue in front of a model's servers. Used from one event loop."""

    def __init__(self, fleet: Fleet, device: RemoteDevice) -> None:
        self.fleet = fleet
        fleet.on_change = self._schedule
        self._device = device
        self._heap: list[tuple[Priority, int, Wanted]] = []
        self._order = 0
        self._calls: set[Trip] = set()
        self._scheduled: asyncio.TimerHandle | None = None
        self._due = 0.0

    @property
    def model(self) -> str:
        """The model's name."""
        return self.fleet.model

    @property
    def account(self) -> Account:
        """What may wait or be computed."""
        return self._device.account

    def submit(
        self,
        rendered: Rendered,
        *,
        priority: Priority,
        deadline: float,
        ahead: int,  # noqa: ARG002
    ) -> "asyncio.Future[Result]":
        """Queues an item; the next turn of the loop sends it with its neighbours."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        item = cast(Sendable, rendered)
        self._push(Wanted(item, priority, deadline, answer, time.monotonic()))
        return answer

    def together(self) -> contextlib.AbstractContextManager[object]:
        """The next turn of the loop comes after the block."""
        return contextlib.nullcontext()

    def shut(self) -> None:
        """Nothing is inside any more."""
        if self._scheduled is not None:
            self._scheduled.cancel()

    def _push(self, wanted: Wanted) -> None:
        self._order += 1
        heapq.heappush(self._heap, (wanted.priority, self._order, wanted))
        self._schedule()

    def _schedule(self, delay_s: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._scheduled is not None:
            if self._due <= due:
                return
            self._scheduled.cancel()
        self._scheduled, self._due = loop.call_at(due, self._pump), due

    def _pump(self) -> None:
        """Starts calls while there are items and servers that take one."""
        self._scheduled = None
        failure = self.fleet.failure
        while self._heap:
            if failure is not None:
                self._fail_all(EngineFailed(f"no server of model {self.model!r} can be used: {failure}"))
            elif (server := self.fleet.free()) is None:
                self._wait_for_room()
                return
            elif batch := self._take(server.most_items):
                self._start(server, batch)

    def _wait_for_room(self) -> None:
        """Comes back when the first busy server is to be tried again; a call that ends comes back by itself."""
        now = time.monotonic()
        pauses = [server.busy_until - now for server in self.fleet.servers if server.busy_until > now]
        if pauses:
            self._schedule(max(min(pauses), 1e-3))

    def _take(self, limit: int) -> list[Wanted]:
        batch: list[Wanted] = []
        tokens = 0
        while self._heap:
            wanted = self._heap[0][2]
            if not wanted.answer.done():
                limit = min(limit, wanted.limit)
                if batch and (len(batch) >= limit or tokens + wanted.tokens > MOST_TOKENS):
                    break
                batch.append(wanted)
                tokens += wanted.tokens
            heapq.heappop(self._heap)
        return batch

    def _start(self, server: Server, batch: list[Wanted]) -> None:
        if not self._calls:
            self._device.started()
        call = Trip(server, batch)
        self._calls.add(call)
        tokens = sum(one.tokens for one in batch)
        server.calls += 1
        server.outstanding += tokens
        call.task = asyncio.create_task(self._run(call))
        call.task.add_done_callback(lambda _: self._ended(call, tokens))
        for one in batch:
            one.answer.add_done_callback(call.left)

    def _ended(self, call: Trip, tokens: int) -> None:
        call.server.calls -= 1
        call.server.outstanding -= tokens
        self._calls.discard(call)
        for one in call.batch:
            one.answer.remove_done_callback(call.left)
        with contextlib.suppress(RuntimeError):  # the loop is closing
            self._schedule()

    async def _run(self, call: Trip) -> None:
        batch, server = call.batch, call.server
        try:
            rows = await server.score([one.item.outgoing for one in batch], batch[0].priority, self._timeout_s(call))
        except (Refused, Miscounted) as error:
            self._divide(call, error)
        except Unavailable as error:
            self._try_again(call, error)
        except Exception as error:
            log.exception("model %s: a call to %s failed", self.model, server.url)
            self._answer_all(batch, EngineFailed(f"the call failed: {type(error).__name__}: {error}"))
        else:
            self._note(call)
            for one, row in zip(batch, rows, strict=True):
                _answer(one, self._result(one, row, call))

    def _note(self, call: Trip) -> None:
        sent = sum(one.tokens for one in call.batch)
        self._device.answered(sent)
        self._device.note_call(
            self.model,
            items=len(call.batch),
            tokens=sum(one.item.tokens for one in call.batch),
            computed_tokens=sent,
            seconds=time.monotonic() - call.started,
        )

    def _timeout_s(self, call: Trip) -> float:
        """Until the last deadline; half of it where another server can be tried then."""
        left = max(one.deadline for one in call.batch) - time.monotonic()
        return left / 2 if len(self.fleet.servers) > 1 else left

    def _divide(self, call: Trip, error: Refused | Miscounted) -> None:
        """One item may be what the server does not take: halves go again, until it is alone."""
        batch, server = call.batch, call.server
        if len(batch) > 1:
            for one in batch:
                one.limit = math.ceil(len(batch) / 2)
                self._again(one)
            return
        kind = InvalidRequest if isinstance(error, Refused) else EngineFailed
        self._answer_all(batch, kind(f"{server.url}: {error}"))

    def _try_again(self, call: Trip, error: Unavailable) -> None:
        server, batch = call.server, call.batch
        if error.busy:
            refusals = max(one.refusals for one in batch)
            pause_s = error.retry_after_s or min(SHORTEST_PAUSE_S * 2**refusals, LONGEST_PAUSE_S)
            server.busy_until = time.monotonic() + pause_s
        else:
            self.fleet.suspect(server, str(error))
        for one in batch:
            one.refusals += error.busy
            one.failures += not error.busy
            one.limit = math.ceil(len(batch) / 2) if error.busy else one.limit
            if one.failures >= MOST_FAILURES:
                _answer(one, ItemError(EngineFailed(f"{one.failures} calls failed; {server.url}: {error}")))
            else:
                self._again(one)

    def _again(self, wanted: Wanted) -> None:
        if not wanted.answer.done():
            self._push(wanted)

    def _result(self, wanted: Wanted, row: Row, call: Trip) -> Result:
        if isinstance(row, ServiceError):
            return ItemError(row)
        outputs = np.array(row, dtype=np.float64)
        labels = len(call.server.labels)
        if outputs.shape != (labels,):
            return ItemError(EngineFailed(f"{call.server.url} gave {len(row)} outputs and the model has {labels}"))
        if not np.isfinite(outputs).all():
            return ItemError(NotFinite(f"{call.server.url} gave {row} for this conversation"))
        return Estimate(
            outputs=outputs,
            tokens=wanted.item.tokens,
            tokens_computed=wanted.tokens,
            response_tokens=wanted.item.response_tokens,
            queue_s=call.started - wanted.since,
            compute_s=time.monotonic() - call.started,
        )

    def _fail_all(self, error: ServiceError) -> None:
        waiting = [wanted for _, _, wanted in self._heap]
        self._heap.clear()
        self._answer_all(waiting, error)

    def _answer_all(self, batch: Sequence[Wanted], error: ServiceError) -> None:
        for one in batch:
            _answer(one, ItemError(error))


def _answer(wanted: Wanted, result: Result) -> None:
    if not wanted.answer.done():
        wanted.answer.set_result(result)
