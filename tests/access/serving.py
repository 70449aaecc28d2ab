"""Scripted engines behind the real server, on a thread and event loop of its own; and plain connections to it."""

import asyncio
import json
import select
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import uvicorn

from reward_service.cli.serving import bind, listen
from reward_service.config import parse_config
from reward_service.service import Service
from tests.conftest import assembled
from tests.scripted import ScriptedEngine

T = TypeVar("T")
PATIENCE_S = 20.0
GOOD = {"prompt": "p", "response": "1.5"}


@dataclass
class Served:
    """A running service; `engines` by model."""

    service: Service
    engines: Mapping[str, ScriptedEngine]
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    port: int
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def do(self, act: Callable[[], T]) -> T:
        """What `act` returns, called on the server's own loop."""

        async def acted() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self.loop).result(PATIENCE_S)

    def connections(self) -> int:
        """How many are open at the server."""
        return self.do(lambda: len(self.server.server_state.connections))

    def refuses(self) -> bool:
        """Whether a connection takes in nothing more; what it accepted may still wait for its answer."""
        connections = self.server.server_state.connections
        return self.do(lambda: any(cast(Any, one)._refused for one in connections))

    @contextmanager
    def told(self, data: bytes) -> "Iterator[Wire]":
        """A connection that the server takes only when `data` is there too: no pause of the machine comes between."""
        with ExitStack() as stack:

            def connect_and_send() -> Wire:
                wire = stack.enter_context(Wire(self.port))
                wire.send(data)
                return wire

            yield self.do(connect_and_send)

    def shut(self, engine: str = "m") -> None:
        """Lets the engine's answers wait until `open`."""
        self.do(lambda: setattr(self.engines[engine], "gate", asyncio.Event()))

    def open(self, engine: str = "m") -> None:
        """Lets the engine answer."""
        gate = self.engines[engine].gate
        assert gate is not None
        self.do(gate.set)

    def end(self) -> None:
        """Tells the server to end, as a signal does."""
        self.do(lambda: setattr(self.server, "should_exit", True))

    def finish(self) -> None:
        """Ends the server whatever a test has left behind, and if it has ended already."""
        for engine in self.engines.values():
            if engine.gate is not None and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(engine.gate.set)
        self.server.should_exit = True

    def ended(self) -> bool:
        """Whether it ended by itself, in good time."""
        self.thread.join(PATIENCE_S)
        return not self.thread.is_alive()


@contextmanager
def served(toml: str, **engines: ScriptedEngine) -> Iterator[Served]:
    """A service on a free port, with the event loop of production."""
    config = parse_config(tomllib.loads(toml), {})
    started: list[Served] = []
    known = threading.Event()

    async def serve() -> None:
        with bind(config.server.host, 0) as bound:
            async with assembled(config, None, **engines) as (service, chosen):

                async def once_ready(server: uvicorn.Server, _url: str) -> None:
                    loop, port = asyncio.get_running_loop(), bound.getsockname()[1]
                    started.append(Served(service, chosen, server, loop, port, threading.current_thread()))
                    known.set()

                await listen(service, bound, once_ready)

    thread = threading.Thread(target=_run, args=(serve(), known))
    thread.start()
    assert known.wait(PATIENCE_S)
    assert started
    try:
        yield started[0]
    finally:
        started[0].finish()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def _run(work: Coroutine[Any, Any, None], known: threading.Event) -> None:
    try:
        with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
            runner.run(work)
    finally:
        known.set()


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Wire:
    """A plain connection, for what no HTTP client sends."""

    port: int
    receive_buffer: int | None = None
    _socket: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        self._socket = socket.socket()
        if self.receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(("127.0.0.1", self.port))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def pour(self, data: bytes) -> None:
        """Send bytes of which the server may not take all; what it has said by then can still be read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def hears(self, within_s: float) -> bool:
        """Whether the server says something, or ends the connection, within that time."""
        return bool(select.select([self._socket], [], [], within_s)[0])

    def reply(self) -> Reply:
        """The next answer."""
        status = int(self._lines.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self._lines.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return Reply(status, headers, self._lines.read(int(headers["content-length"])))

    def take(self, count: int) -> bytes:
        """At most so many bytes of what there is; none at the end of the connection."""
        return self._lines.read1(count)

    def closed(self) -> bool:
        """Whether the server closes the connection, and has said no more."""
        try:
            return self._lines.read() == b""
        except ConnectionResetError:
            return True


def request(method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as bytes; a body is sent as JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = {
        "host": "test",
        **({"content-type": "application/json", "content-length": str(len(content))} if content else {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **(headers or {})}.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


def score_request(count: int = 1, headers: Mapping[str, str] | None = None) -> bytes:
    """A good POST /v1/score as bytes."""
    return request("POST", "/v1/score", {"conversations": [GOOD] * count}, headers)


def until(true: Callable[[], bool]) -> None:
    """Waits for a condition that must come."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
