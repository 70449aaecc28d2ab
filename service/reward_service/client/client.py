"""Client: the calls for ordinary code; may be used from several threads."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from reward_service.client.steps import Enter, Flow, Lost, Reply, Send, Sleep, Step, Together
from reward_service.client.threads import Stopped, check, together
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
    """What belongs to one process: connections, slots, and what is known of the replicas."""

    pid: int
    lanes: Lanes[httpx.Client]
    slots: threading.Semaphore
    exchange: Exchange


class Client(Shell[httpx.BaseTransport]):
    """Calls a reward service.

    `base_url` is the service, or a list of its replicas; `Settings` describes the options. While the service is busy,
    restarting or gone, a call is tried again until `deadline_s`; then it raises Unavailable. What the service refuses
    raises RequestFailed. A conversation without a reward is a ScoringFailed, or what `on_failure` says.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        *,
        transport: httpx.BaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(base_url, transport, options)

    def score(self, conversations: Sequence[Json], objective: str | None = None, **options: Any) -> ScoreAnswer:
        """Score conversations; options: `expect`, `timeout_s`, `references`, `cache`, `priority`, `advantages`."""
        opened = self._here()
        return self._run(opened, opened.exchange.score(conversations, objective, options), threading.Event())

    def put_baselines(self, model: str, policy: str, entries: Sequence[Json], **options: Any) -> BaselinesWritten:
        """Store references; options: `mode`, `policy_revision`, `idempotency_key`."""
        return self._send(calls.put_baselines(model, policy, entries, **options))

    def baseline(self, model: str, policy: str, prompt: str, **options: Any) -> Baseline:
        """The baseline of a one-turn prompt; options: `label`, `quantile`, `method`."""
        return self._send(calls.baseline(model, policy, prompt, **options))

    def query_baselines(
        self, model: str, policy: str, prompts: Sequence[str | Sequence[Json]], **options: Any
    ) -> Baselines:
        """The baselines of many prompts; options: `tools`, `label`, `quantile`, `method`."""
        return self._send(calls.query_baselines(model, policy, prompts, **options))

    def delete_baselines(self, policy: str, **options: Any) -> BaselinesDeleted:
        """Forget a policy's references; options: `model` (only this one's), `prompt` (only this one's)."""
        return self._send(calls.delete_baselines(policy, **options))

    def freeze_baselines(self, policy: str, *, frozen: bool = True) -> FrozenBaselines:
        """Forbid any change of a policy's baselines, or allow it again."""
        return self._send(calls.freeze_baselines(policy, frozen=frozen))

    def build_global_baseline(self, model: str, policy: str, **options: Any) -> Snapshot:
        """Take a policy's global snapshot anew; options: `min_references` that a prompt needs to count."""
        return self._send(calls.build_global_baseline(model, policy, **options))

    def models(self) -> Models:
        """What is loaded."""
        return self._send(calls.models())

    def model(self, name: str) -> ModelCard:
        """One loaded model."""
        return self._send(calls.model(name))

    def reload_model(self, name: str) -> ModelReloaded:
        """Load a model anew, as its files are now; `timeout_s` does not count, `deadline_s` does."""
        return self._send(calls.reload_model(name))

    def objectives(self) -> Objectives:
        """The objectives on offer."""
        return self._send(calls.objectives())

    def close(self) -> None:
        """Close the connections; a call after that raises RuntimeError."""
        self._is_closed = True
        if self._opened.pid == os.getpid():
            for http in self._opened.lanes.all:
                http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, settings: Settings, transport: httpx.BaseTransport | None, held: Held) -> None:
        super()._begin(settings, transport, held)
        self._opened = self._open()

    def _open(self) -> _Opened:
        lane = partial(httpx.Client, transport=self._transport, verify=tls(), limits=LIMITS)
        slots = threading.Semaphore(self._settings.max_concurrency)
        return _Opened(os.getpid(), Lanes(lane), slots, Exchange(self._settings, self._pin))

    def _here(self) -> _Opened:
        """What is open in this process; after a fork the connections are still the other's."""
        self._check_open()
        if self._opened.pid != os.getpid():
            self._begin(self._settings, self._transport, self._pin.held)
        return self._opened

    def _send(self, call: Call[A]) -> A:
        opened = self._here()
        return self._run(opened, opened.exchange.call(call), threading.Event())

    def _run(self, opened: _Opened, flow: Flow[T], stop: threading.Event) -> T:
        """Do what a flow asks for, step by step, and return what it returns."""
        resume: Callable[[], Step] = partial(next, flow)
        while True:
            try:
                step = resume()
            except StopIteration as end:
                return cast(T, end.value)
            try:
                resume = partial(flow.send, self._done(opened, step, stop))
            except BaseException as error:  # the flow ends what it has begun, and raises it again
                resume = partial(flow.throw, error)

    def _done(self, opened: _Opened, step: Step, stop: threading.Event) -> object:
        """The result of a step; Stopped when another part of the call has failed."""
        check(stop)
        match step:
            case Enter():
                return opened.slots.release if opened.slots.acquire(timeout=step.timeout_s) else None
            case Send():
                return _sent(opened.lanes, step)
            case Sleep():
                if stop.wait(step.seconds):
                    raise Stopped
                return None
            case Together():
                parts = [partial(self._run, opened, flow, stop) for flow in step.flows]
                return together(parts, self._settings.max_concurrency, stop)


def _sent(lanes: Lanes[httpx.Client], send: Send) -> Reply | Lost:
    until = time.monotonic() + send.timeout_s
    try:
        with lanes.lane() as http, http.stream(**arguments(send)) as response:
            return reply(response, b"".join(_chunks(response, send, until)))
    except LOSSES as error:
        return Lost(error)


def _chunks(response: httpx.Response, send: Send, until: float) -> Iterator[bytes]:
    """The body; httpx.ReadTimeout when it is not whole in time, however steadily it drips.

    httpx counts its timeout anew for each read: those of the body get what is left when the headers are there.
    """
    response.request.extensions["timeout"]["read"] = _left_s(send, until)
    for chunk in response.iter_bytes():
        _left_s(send, until)
        yield chunk


def _left_s(send: Send, until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise late(send)
    return left
