"""Runs the service under uvicorn: start, serve, end gracefully."""

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import typer
import uvicorn

from reward_service.api.app import create_app
from reward_service.cli.connections import Connection, allow_descriptors
from reward_service.config import Config
from reward_service.service import Service, running
from reward_service.telemetry import configure_logs

log = logging.getLogger(__name__)

GRACE_S = 5
"""Seconds over the longest request, so that what was accepted is finished before the service ends."""
KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that it is never the service that closes one just as it is reused."""
Prepare = Callable[[Service], Awaitable[None]]
OnceReady = Callable[[uvicorn.Server, str], Awaitable[None]]


def run_server(config: Config) -> None:
    """Serve `config` until a signal ends it."""
    telemetry = config.telemetry
    configure_logs(telemetry.log_format, telemetry.log_level)
    run(serve(config, announce if telemetry.log_format == "text" else announce_in_log))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on uvicorn's event loop; Ctrl-C and SIGTERM are the ordinary end, not an error."""
    loop_factory = uvicorn.Config("").get_loop_factory()
    with _terminable(), suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds what runs. uvicorn raises it again once it no longer listens, and by default that would end the
    process before engines and store are closed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def serve(config: Config, once_ready: OnceReady, *, prepare: Prepare | None = None) -> None:
    """Start the service, `prepare` it, call `once_ready(server, url)` when it answers, and serve until told to exit."""
    with bind(config.server.host, config.server.port) as bound:
        async with running(config) as service:
            if prepare is not None:
                await prepare(service)
            await listen(service, bound, once_ready)


class Server(uvicorn.Server):
    """uvicorn's server, which also tells when it listens and when it ends."""

    def __init__(self, settings: uvicorn.Config, on_ending: Callable[[], None]) -> None:
        super().__init__(settings)
        self.listening = asyncio.Event()
        self._on_ending = on_ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets=sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and finish what was accepted."""
        self._on_ending()
        await super().shutdown(sockets=sockets)


async def listen(service: Service, bound: socket.socket, once_ready: OnceReady) -> None:
    """Serve a started service on a bound socket until told to exit; call `once_ready(server, url)` when it answers."""
    app, limits = create_app(service), service.config.limits
    allow_descriptors(limits.max_connections)
    settings = uvicorn.Config(
        app,
        http=cast(type[Connection], partial(Connection, limits=limits)),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(limits.request_timeout_s) + GRACE_S,
    )
    gc.freeze()  # what is loaded stays: no later collection looks through it again
    server = Server(settings, on_ending=partial(setattr, app.state, "ending", True))
    ready = asyncio.create_task(_once_ready(server, _url(bound), once_ready))
    try:
        await server.serve(sockets=[bound])
    finally:
        ready.cancel()
    with suppress(asyncio.CancelledError):
        await ready


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _once_ready(server: Server, url: str, once_ready: OnceReady) -> None:
    await server.listening.wait()
    try:
        await once_ready(server, url)
    except BaseException:
        server.should_exit = True
        raise


async def announce(_server: uvicorn.Server, url: str) -> None:
    """Say where the service listens."""
    typer.echo(f"serving on {url}  (API page: {url}/docs; Ctrl-C ends)")


async def announce_in_log(_server: uvicorn.Server, url: str) -> None:
    """Say so in the log, for who collects lines of one form only."""
    log.info("serving on %s", url)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound before the models load, so that a taken port is told at once; it listens when they are loaded."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        sys.exit(f"{host}:{port} cannot be bound: {error.strerror}; choose another port")
    return bound
