"""AsyncClient: the calls for async code; may be used from several event loops, one after the other or at once."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

import httpx
from pydantic import BaseModel

from reward_service.client import calls
from reward_service.client.calls import Call, Json
from reward_service.client.exchange import Exchange
from reward_service.client.lanes import Lanes
from reward_service.client.settings import Options, Settings
from reward_service.client.shell import LIMITS, LOSSES, Held, Shell, arguments, late, reply, tls
from reward_service.client.steps import Enter, Flow, Lost, Release, Reply, Send, Sleep, Step, Together
from reward_service.schemas import (
    Baseline,
    Baselines,
    BaselinesDeleted,
    BaselinesWritten,
    FrozenBaselines,
    ModelCard,
    ModelReloaded,
    Models,
    Objectives,
    ScoreAnswer,
    Snapshot,
)

A = TypeVar("A", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opened:
    """What belongs to one event loop of one process: connections, slots, and what is known of the replicas."""

    pid: int
    lanes: Lanes[httpx.AsyncClient]
    slots: asyncio.Semaphore
    exchange: Exchange
    ending: AsyncGenerator[None, None]


class AsyncClient(Shell[httpx.AsyncBaseTransport]):
    """Client for async code: the same options, calls and exceptions, awaited.

    Connections belong to the event loop that opened them. `close` closes those of the running loop, and so does the end
    of `asyncio.run`.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(base_url, transport, options)

    async def score(self, conversations: Sequence[Json], objective: str | None = None, **options: Any) -> ScoreAnswer:
        """Score conversations; options: `expect`, `timeout_s`, `references`, `cache`, `priority`, `advantages`."""
        opened = self._here()
        return await self._run(opened, opened.exchange.score(conversations, objective, options))

    async def put_baselines(self, model: str, policy: str, entries: Sequence[Json], **options: Any) -> BaselinesWritten:
        """Store references; options: `mode`, `policy_revision`, `idempotency_key`."""
        return await self._send(calls.put_baselines(model, policy, entries, **options))

    async def baseline(self, model: str, policy: str, prompt: str, **options: Any) -> Baseline:
        """The baseline of a one-turn prompt; options: `label`, `quantile`, `method`."""
        return await self._send(calls.baseline(model, policy, prompt, **options))

    async def query_baselines(
        self, model: str, policy: str, prompts: Sequence[str | Sequence[Json]], **options: Any
    ) -> Baselines:
        """The baselines of many prompts; options: `tools`, `label`, `quantile`, `method`."""
        return await self._send(calls.query_baselines(model, policy, prompts, **options))

    async def delete_baselines(self, policy: str, **options: Any) -> BaselinesDeleted:
        """Forget a policy's references; options: `model` (only this one's), `prompt` (only this one's)."""
        return await self._send(calls.delete_baselines(policy, **options))

    async def freeze_baselines(self, policy: str, *, frozen: bool = True) -> FrozenBaselines:
        """Forbid any change of a policy's baselines, or allow it again."""
        return await self._send(calls.freeze_baselines(policy, frozen=frozen))

    async def build_global_baseline(self, model: str, policy: str, **options: Any) -> Snapshot:
        """Take a policy's global snapshot anew; options: `min_references` that a prompt needs to count."""
        return await self._send(calls.build_global_baseline(model, policy, **options))

    async def models(self) -> Models:
        """What is loaded."""
        return await self._send(calls.models())

    async def model(self, name: str) -> ModelCard:
        """One loaded model."""
        return await self._send(calls.model(name))

    async def reload_model(self, name: str) -> ModelReloaded:
        """Load a model anew, as its files are now; `timeout_s` does not count, `deadline_s` does."""
        return await self._send(calls.reload_model(name))

    async def objectives(self) -> Objectives:
        """The objectives on offer."""
        return await self._send(calls.objectives())

    async def close(self) -> None:
        """Close the connections; a call after that raises RuntimeError."""
        self._is_closed = True
        opened = self._opened.get(asyncio.get_running_loop())
        if opened is not None and opened.pid == os.getpid():
            for http in opened.lanes.all:
                await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _begin(self, settings: Settings, transport: httpx.AsyncBaseTransport | None, held: Held) -> None:
        super()._begin(settings, transport, held)
        self._opened: dict[asyncio.AbstractEventLoop, _Opened] = {}

    def _open(self) -> _Opened:
        lanes = Lanes(partial(httpx.AsyncClient, transport=self._transport, verify=tls(), limits=LIMITS))
        slots = asyncio.Semaphore(self._settings.max_concurrency)
        return _Opened(os.getpid(), lanes, slots, Exchange(self._settings, self._pin), _ending(lanes))

    def _here(self) -> _Opened:
        """What is open in this process and event loop; what was open in a loop that is closed went with it."""
        self._check_open()
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None or opened.pid != os.getpid():
            usable = {one: had for one, had in self._opened.items() if had.pid == os.getpid() and not one.is_closed()}
            opened = self._open()
            self._opened = {**usable, loop: opened}
            with suppress(StopIteration):
                opened.ending.__anext__().send(None)
        return opened

    async def _send(self, call: Call[A]) -> A:
        opened = self._here()
        return await self._run(opened, opened.exchange.call(call))

    async def _run(self, opened: _Opened, flow: Flow[T]) -> T:
        """Do what a flow asks for, step by step, and return what it returns."""
        resume: Callable[[], Step] = partial(next, flow)
        while True:
            try:
                step = resume()
            except StopIteration as end:
                return cast(T, end.value)
            try:
                resume = partial(flow.send, await self._done(opened, step))
            except BaseException as error:  # the flow ends what it has begun, and raises it again
                resume = partial(flow.throw, error)

    async def _done(self, opened: _Opened, step: Step) -> object:
        """The result of a step."""
        match step:
            case Enter():
                return await _entered(opened.slots, step.timeout_s)
            case Send():
                return await _sent(opened.lanes, step)
            case Sleep():
                await asyncio.sleep(step.seconds)
                return None
            case Together():
                return await self._together(opened, step.flows)

    async def _together(self, opened: _Opened, flows: Sequence[Flow[Any]]) -> list[Any]:
        """The results of flows run in tasks; the first exception cancels the others."""
        tasks = [asyncio.create_task(self._run(opened, flow)) for flow in flows]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ending(lanes: Lanes[httpx.AsyncClient]) -> AsyncGenerator[None, None]:
    """Once begun, an event loop ends this before itself, as it does with all async generators that are still open."""
    try:
        yield
    finally:
        for http in lanes.all:
            await http.aclose()


async def _entered(slots: asyncio.Semaphore, timeout_s: float) -> Release | None:
    try:
        async with asyncio.timeout(timeout_s if slots.locked() else None):
            await slots.acquire()
    except TimeoutError:
        return None
    return slots.release


async def _sent(lanes: Lanes[httpx.AsyncClient], send: Send) -> Reply | Lost:
    try:
        with lanes.lane() as http:
            async with asyncio.timeout(send.timeout_s):  # that of httpx counts anew for each read
                response = await http.request(**arguments(send))
            return reply(response, response.content)
    except TimeoutError:
        return Lost(late(send))
    except LOSSES as error:
        return Lost(error)
