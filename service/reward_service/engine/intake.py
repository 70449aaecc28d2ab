"""One request's way to the device: slices are admitted, rendered off the event loop and queued; answers in order."""

import asyncio
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from reward_service.engine.admission import MAX_BYTES_PER_TOKEN, Account, Hold, Yardstick, content, slices
from reward_service.engine.devices import Device
from reward_service.engine.doors import Arrival
from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.engine.lanes import Lane
from reward_service.engine.rendering import Rendered
from reward_service.engine.score_cache import ModelScores
from reward_service.errors import DeadlineExceeded, NotReady, ServiceError, TooLarge
from reward_service.telemetry import Stage

SAMPLE = 16
"""So many items of a large request tell how many tokens it has."""
Render = Callable[[Item], Rendered]
Result = Estimate | ItemError


class Queue(Protocol):
    """What computes rendered items of one model, and the account of what it may hold."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def account(self) -> Account:
        """What may enter."""

    def submit(
        self, rendered: Rendered, *, priority: Priority, deadline: float, ahead: int
    ) -> "asyncio.Future[Result]":
        """Queues an item behind `ahead` tokens of its own request; cancelling the answer takes it out."""

    def together(self) -> AbstractContextManager[object]:
        """What is submitted in the block is there at once for those who make batches in this process."""

    def shut(self) -> None:
        """Takes no more; nothing is inside."""


class Entrance:
    """Where the requests of one model enter."""

    def __init__(
        self,
        queue: Queue,
        render: Render,
        rendering: Executor,
        scores: ModelScores | None = None,
        *,
        max_tokens: int | None = None,
    ) -> None:
        self.queue = queue
        self.max_tokens = max_tokens
        self.rendering = rendering
        self.scores = scores
        self.render_all = functools.partial(render_all, render)
        self.yardstick = Yardstick()
        self._open = 0
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def score(
        self, items: Sequence[Item], *, priority: Priority, deadline: float, admitted: bool, use_cache: bool = True
    ) -> list[Result]:
        """One result per item, in order; raises Overloaded, NotReady, or TooLarge when no item can ever enter."""
        if self._closing:
            raise NotReady(f"model {self.queue.model!r} is being unloaded")
        self._open += 1
        self._empty.clear()
        try:
            scores = self.scores if use_cache else None
            return await Request(self, items, priority, deadline, admitted, Hold(self.queue.account), scores).run()
        finally:
            self._open -= 1
            if not self._open:
                self._empty.set()

    async def close(self) -> None:
        """Takes no more requests and finishes those that are inside."""
        self._closing = True
        await self._empty.wait()
        self.queue.shut()


class Intake(Entrance):
    """The entrance of a model that is computed here."""

    def __init__(
        self, lane: Lane, device: Device, render: Render, rendering: Executor, scores: ModelScores | None = None
    ) -> None:
        super().__init__(LaneQueue(lane, device), render, rendering, scores)
        self.lane = lane
        self.device = device


@dataclass(frozen=True, slots=True)
class LaneQueue:
    """A lane before its device."""

    lane: Lane
    device: Device

    @property
    def model(self) -> str:
        """The model's name."""
        return self.lane.model

    @property
    def account(self) -> Account:
        """What all models of the device may hold together."""
        return self.device.account

    def submit(
        self, rendered: Rendered, *, priority: Priority, deadline: float, ahead: int
    ) -> "asyncio.Future[Result]":
        """Hands the item to the device's thread."""
        return self.device.thread.submit(self.lane, rendered, priority=priority, deadline=deadline, ahead=ahead)

    def together(self) -> AbstractContextManager[object]:
        """The device's thread waits until the end of the block."""
        return self.device.thread.together()

    def shut(self) -> None:
        """Closes the lane."""
        self.device.thread.shut(self.lane)


@dataclass(slots=True)
class Request:
    """One call of `score` while it runs."""

    intake: Entrance
    items: Sequence[Item]
    priority: Priority
    deadline: float
    admitted: bool
    hold: Hold
    scores: ModelScores | None
    results: dict[int, Result] = field(default_factory=dict)
    answers: "set[asyncio.Future[Result]]" = field(default_factory=set)
    sizes: dict[int, int] = field(default_factory=dict)
    queued_tokens: int = 0

    async def run(self) -> list[Result]:
        """Feeds the slices and waits for the answers; what is not answered at the deadline is an error."""
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                await self._feed()
                await _all(self.answers)
        except TimeoutError:
            pass  # the deadline: what has no result yet gets an error below
        finally:
            for answer in self.answers:
                answer.cancel()
            self.hold.close()
        late = ItemError(DeadlineExceeded("the time that the request allowed is over"))
        results = [self.results.get(index, late) for index in range(len(self.items))]
        _refuse_if_nothing_fits(results)
        return results

    async def _feed(self) -> None:
        for indices, estimated in slices(self._sized(), self.intake.queue.account.slice_tokens):
            with Stage("admit"):
                await self._admit(len(indices), estimated)
            items = [self.items[index] for index in indices]
            loop = asyncio.get_running_loop()
            with Stage("render"):
                rendered = await loop.run_in_executor(self.intake.rendering, self.intake.render_all, items)
            checked = dict(zip(indices, map(self._check, rendered), strict=True))
            tokens = {index: one.tokens for index, one in checked.items() if isinstance(one, Rendered)}
            with Stage("score_cache"):
                kept = await self._kept(checked)
            self.hold.correct(sum(tokens[index] for index in tokens.keys() - kept.keys()) - estimated)
            self.intake.yardstick.learn(sum(self.sizes[index] for index in tokens), sum(tokens.values()))
            self.results.update(kept)
            with self.intake.queue.together():
                for index in [index for index in checked if index not in kept]:
                    self._queue(index, checked[index])
        self.hold.complete()

    async def _admit(self, count: int, tokens: int) -> None:
        """Room for the next slice of `count` items."""
        if self.hold.arrival is None:
            await self.hold.enter(self._arrival(count, tokens), admitted=self.admitted)
        else:
            await self.hold.take(tokens)

    def _arrival(self, count: int, first: int) -> Arrival:
        """The request as a door sees it; one that comes back is known by its texts."""
        some = self.items[:: max(1, len(self.items) // SAMPLE)]
        tokens = first
        if count < len(self.items):
            size = sum(len(content(item)) for item in some) * len(self.items) // len(some)
            most = len(self.items) * (self.intake.max_tokens or size)
            tokens = max(first + 1, min(most, self.intake.yardstick.estimate(size)))
        return Arrival(
            key=hash((len(self.items), *map(_text, some))),
            model=self.intake.queue.model,
            tokens=tokens,
            first=first,
            left_s=self.deadline - time.monotonic(),
            priority=self.priority,
        )

    async def _kept(self, checked: Mapping[int, Rendered | ServiceError]) -> dict[int, Result]:
        """The results that need not be computed: they hold no room."""
        asked = {index: one for index, one in checked.items() if isinstance(one, Rendered)}
        if self.scores is None or not asked:
            return {}
        found = await self.scores.get_many(list(asked.values()))
        return {index: estimate for index, estimate in zip(asked, found, strict=True) if estimate is not None}

    def _sized(self) -> Iterator[tuple[int, int]]:
        """Index and estimated tokens of each item that may be rendered."""
        budget = self.intake.queue.account.budget
        most = min(budget, self.intake.max_tokens or budget)  # of an item: the rest is refused or cut off
        for index, item in enumerate(self.items):
            self.sizes[index] = size = len(content(item))
            if size > budget * MAX_BYTES_PER_TOKEN:
                self.results[index] = ItemError(TooLarge(f"{size} bytes cannot fit the {budget} tokens of the queue"))
            else:
                yield index, min(most, self.intake.yardstick.estimate(size))

    def _check(self, rendered: Rendered | ServiceError) -> Rendered | ServiceError:
        budget = self.intake.queue.account.budget
        if isinstance(rendered, Rendered) and rendered.tokens > budget:
            return TooLarge(f"the conversation has {rendered.tokens} tokens and the whole queue holds {budget}")
        return rendered

    def _queue(self, index: int, rendered: Rendered | ServiceError) -> None:
        if isinstance(rendered, ServiceError):
            self.results[index] = ItemError(rendered)
            return
        answer = self.intake.queue.submit(
            rendered, priority=self.priority, deadline=self.deadline, ahead=self.queued_tokens
        )
        self.queued_tokens += rendered.tokens
        self.answers.add(answer)
        answer.add_done_callback(functools.partial(self._collect, index, rendered))

    def _collect(self, index: int, rendered: Rendered, answer: "asyncio.Future[Result]") -> None:
        if not answer.cancelled():
            self.results[index] = result = answer.result()
            self.answers.discard(answer)
            self.queued_tokens -= rendered.tokens
            self.hold.release(rendered.tokens)
            if self.scores is not None and isinstance(result, Estimate):
                self.scores.put(rendered, result)


def _text(item: Item) -> str:
    """What tells an item from most others."""
    return item.text or "" if item.messages is None else str(item.messages[-1].get("content"))


def render_all(render: Render, items: Sequence[Item]) -> list[Rendered | ServiceError]:
    """Blocking; an item that cannot be rendered is its error."""
    return [_render(render, item) for item in items]


def _render(render: Render, item: Item) -> Rendered | ServiceError:
    try:
        return render(item)
    except ServiceError as error:
        return error


async def _all(answers: "set[asyncio.Future[Result]]") -> None:
    if answers:
        await asyncio.wait(answers)


def _refuse_if_nothing_fits(results: Sequence[Result]) -> None:
    errors = [result.error for result in results if isinstance(result, ItemError)]
    if errors and len(errors) == len(results) and all(isinstance(error, TooLarge) for error in errors):
        raise errors[0]
