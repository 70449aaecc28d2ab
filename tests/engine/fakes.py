"""A blocking model and a renderer without torch: a text of n words is n tokens and scores its length."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, Priority
from reward_service.engine.forward import Layout, Pause
from reward_service.engine.intake import Intake, Result
from reward_service.engine.rendering import Rendered
from reward_service.errors import RenderingFailed

BAD, NAN = 13, 14
"""Words that make a batch fail and that make an item NaN."""
LONG = 400
BUSY_WORD = 99
BUSY = np.array([BUSY_WORD], dtype=np.int32).tobytes()


async def until(reached: Callable[[], bool]) -> None:
    """Waits for a state that nothing announces; at most 30 s."""
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(0.002)


def words(item: Item) -> Rendered:
    """Each word of the text, a number, is a token."""
    ids = np.array([int(word) for word in (item.text or "").split()], dtype=np.int32)
    if not len(ids):
        raise RenderingFailed("no words")
    return Rendered(ids, len(ids) - 1, len(ids))


def text(tokens: int, word: int = 1) -> Item:
    """An item of so many tokens."""
    return Item(text=" ".join([str(word)] * tokens))


@dataclass
class FakeModel:
    """Scores the last token of each item; holds the device until `gate` is set."""

    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    batches: list[list[tuple[int, ...]]] = field(default_factory=list)
    seconds: float = 0.0

    layout = Layout.PADDED

    def prepare(self, batch: Sequence[Rendered]) -> Sequence[Rendered]:
        return batch

    def compute(self, batch: Sequence[Rendered], pause: Pause) -> NDArray[np.float64]:
        """Fails on BAD, gives NaN on NAN."""
        self.batches.append([tuple(one.ids.tolist()) for one in batch])
        self.started.set()
        assert self.gate.wait(30)
        time.sleep(self.seconds)
        if any(BAD in one.ids for one in batch):
            raise RuntimeError("bad item")
        return np.array([[np.nan if NAN in one.ids else float(one.ids[-1])] for one in batch])

    @property
    def computed(self) -> list[tuple[int, ...]]:
        """Everything that reached the device."""
        return [ids for batch in self.batches for ids in batch]


@dataclass
class LayeredModel:
    """Takes its time layer by layer, with a pause between them; shares prefixes. Scores the last token of each item.

    While `gate` is shut a batch with a long item goes on pausing.
    """

    layers: int = 20
    s_per_token: float = 1e-4
    batches: list[list[int]] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    layout: Layout = Layout.SHARED

    def prepare(self, batch: Sequence[Rendered]) -> Sequence[Rendered]:
        self.prepared.append(threading.current_thread().name)
        return batch

    def compute(self, batch: Sequence[Rendered], pause: Pause) -> NDArray[np.float64]:
        """Fails on BAD after its last layer. `batches` are in the order in which they end."""
        self.started.set()
        for _ in range(self.layers):
            time.sleep(self.s_per_token * sum(one.tokens for one in batch) / self.layers)
            pause()
        while any(one.tokens >= LONG for one in batch) and not self.gate.wait(0.005):
            pause()
        if any(BAD in one.ids for one in batch):
            raise RuntimeError("bad item")
        self.batches.append([int(one.ids[-1]) for one in batch])
        return np.array([[float(one.ids[-1])] for one in batch])


def opened(
    devices: Devices, model: FakeModel | LayeredModel, *, name: str = "m", max_batch_tokens: int = 1000
) -> Intake:
    """The intake of a fake model on the device `fake`."""
    device = devices.get("fake")
    return Intake(device.thread.open(name, model, max_batch_tokens), device, words, devices.rendering)


class Seen:
    """Remembers what the device reports."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, dict[str, Any]]] = []
        self.spelled: list[str] = []

    def on_batch(self, model: str, *, items: int, tokens: int, computed_tokens: int, seconds: float) -> None:
        report = {"items": items, "tokens": tokens, "computed_tokens": computed_tokens, "seconds": seconds}
        self.batches.append((model, report))

    def on_spelled(self, model: str) -> None:
        self.spelled.append(model)


def score(
    intake: Intake, *items: Item, priority: Priority = Priority.ROLLOUT, within_s: float = 30
) -> "asyncio.Task[list[Result]]":
    deadline = time.monotonic() + within_s
    return asyncio.create_task(intake.score(items, priority=priority, deadline=deadline, admitted=False))


async def reached(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


async def queued(intake: Intake, count: int) -> None:
    """Until so many items wait or are picked ahead behind the one that keeps the device busy."""

    def inside() -> int:
        with intake.device.thread._lock:  # what is just being picked counts once
            return len(intake.lane.waiting) + sum(key != BUSY for key, _ in intake.lane.computing)

    await until(lambda: inside() >= count)


async def shared(intake: Intake, callers: int) -> None:
    """Until so many callers wait for one item."""
    lane = intake.lane

    def most() -> int:
        with intake.device.thread._lock:
            return max((len(work.waiters) for work in (*lane.waiting.in_age(), *lane.computing.values())), default=0)

    await until(lambda: most() >= callers)


async def busy(intake: Intake, model: FakeModel) -> "asyncio.Task[list[Result]]":
    """Occupies the device with one item until the model's gate opens."""
    task = score(intake, text(1, BUSY_WORD))
    await reached(model.started)
    return task


@asynccontextmanager
async def held_up(devices: Devices) -> AsyncIterator[None]:
    """Another model keeps the device busy until the end of the block: what is queued in it is all there at once."""
    model = FakeModel()
    beside = opened(devices, model, name="beside")
    task = await busy(beside, model)
    try:
        yield
    finally:
        model.gate.set()
        await task
        await beside.close()


def value(result: Result) -> float:
    assert isinstance(result, Estimate)
    return float(result.outputs[0])
