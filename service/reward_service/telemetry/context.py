"""The request that the present code works for: its id in every log line, its time by stage, its spans."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol


class Tracer(Protocol):
    """What makes spans, where traces are on."""

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """A span under the present one."""


@dataclass(slots=True)
class RequestContext:
    """What is noted of a request while it is served; `stages` are seconds by name, summed over models and slices."""

    request_id: str
    tracer: Tracer | None = None
    trace_id: str | None = None
    stages: dict[str, float] = field(default_factory=dict)
    conversations: int | None = None
    tokens: int | None = None

    def add(self, stage: str, seconds: float) -> None:
        """Note time spent in a stage."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds


Requests = Callable[[], Sequence[str]]
_current: ContextVar[RequestContext | None] = ContextVar("request", default=None)
_batch: ContextVar[Requests | None] = ContextVar("batch", default=None)


def current_request() -> RequestContext | None:
    """The request that this code works for; None outside of one, and on threads that work for many."""
    return _current.get()


def current_request_id() -> str | None:
    """Its id."""
    request = _current.get()
    return None if request is None else request.request_id


@contextmanager
def working_for(request: RequestContext) -> Iterator[None]:
    """The block, and every task and thread that it starts through asyncio, works for `request`."""
    token = _current.set(request)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def working_for_batch(requests: Requests) -> Iterator[None]:
    """The block works for all of `requests` at once; they are only asked for when a line is logged."""
    token = _batch.set(requests)
    try:
        yield
    finally:
        _batch.reset(token)


def request_fields() -> dict[str, object]:
    """The request, or the requests of a batch, as fields of a log line."""
    if (request := _current.get()) is not None:
        return {"request_id": request.request_id, "trace_id": request.trace_id}
    batch = _batch.get()
    return {} if batch is None else {"request_ids": list(batch())}


class Span:
    """A part of the present request in its trace: `with Span("score", model=name):`. Without traces it does nothing."""

    __slots__ = ("_attributes", "_entered", "_name")

    def __init__(self, name: str, **attributes: Any) -> None:
        self._name = name
        self._attributes = attributes
        self._entered: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        request = _current.get()
        if request is not None and request.tracer is not None:
            self._enter(request.tracer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entered is not None:
            self._entered.__exit__(kind, error, trace)

    def _enter(self, tracer: Tracer) -> None:
        self._entered = tracer.span(self._name, self._attributes)
        self._entered.__enter__()


class Stage(Span):
    """A span whose time is noted in the request too, for the metrics: `with Stage("render"):`."""

    __slots__ = ("_request", "_started")

    def __enter__(self) -> None:
        self._request = request = _current.get()
        if request is not None and request.tracer is not None:
            self._enter(request.tracer)
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._request is not None:
            self._request.add(self._name, time.perf_counter() - self._started)
        if self._entered is not None:
            self._entered.__exit__(kind, error, trace)
