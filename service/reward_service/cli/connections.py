"""One connection to the service: how long it may take, how much it may send ahead, how junk on it is refused."""

import asyncio
import logging
import resource
import uuid
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from reward_service.api.limits import REFUSAL
from reward_service.api.problem import MEDIA_TYPE, REQUEST_ID, unanswered
from reward_service.config import LimitsConfig
from reward_service.errors import HeadersTooLarge, MalformedRequest, Overloaded, RequestTimeout, ServiceError

MOST_HEAD_BYTES = 64 * 1024
MOST_AHEAD = 16
"""Requests that a caller may send on a connection without waiting for the answer to the first."""
SPARE_CONNECTIONS = 256
"""Connections over the limit that are told so; what comes over these too is closed without a word."""
ANNOUNCING_A_BODY = (b"content-length", b"transfer-encoding")
LINGER_S = 2.0
RETRY_S = 1.0
logger = logging.getLogger(__name__)


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection with bounds on time and memory.

    What was accepted is answered, whatever comes after it on the same connection.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: LimitsConfig,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._header_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._refusal: ServiceError | None = None
        self._refused = False
        self._answers = 0
        self._unsent = (0, 0)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A caller has connected."""
        super().connection_made(transport)
        over = len(self.connections) - self._limits.max_connections
        if over > SPARE_CONNECTIONS:
            transport.abort()
            return
        if over > 0:
            most = f"{self._limits.max_connections} connections are open (limits.max_connections)"
            self.app_state = {**self.app_state, REFUSAL: Overloaded(most, retry_after_s=RETRY_S)}
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._head_is_here()
        if self._send_timer is not None:
            self._send_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the callbacks below are the parser's."""
        if not self._refused:
            self._unparsed_bytes += len(data)
            super().data_received(data)
            self._check_progress()

    def _check_progress(self) -> None:
        if self._refused:
            return
        if self._unparsed_bytes > MOST_HEAD_BYTES:
            self._refuse(_too_large())
        elif self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_url(self, url: bytes) -> None:
        """Part of the path and query."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what comes after a chunked body is dropped."""
        if self._in_head:
            self._head_bytes += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request is here: serve it, or stop the parser with an error."""
        self._in_head, self._unparsed_bytes = False, 0
        self._head_is_here()
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refusal = _too_large()
            raise ValueError
        if len(self.pipeline) >= MOST_AHEAD:
            self._refusal = MalformedRequest(f"more than {MOST_AHEAD} requests ahead of the answer to the first")
            raise ValueError
        if self.parser.should_upgrade() and any(name in ANNOUNCING_A_BODY for name, _ in self.headers):
            self._refusal = MalformedRequest("no protocol is changed here; send a body without the header upgrade")
            raise ValueError
        super().on_headers_complete()
        if REFUSAL in self.app_state or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        """The length of a chunk is here."""
        self._unparsed_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._unparsed_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is written, if not sent."""
        super().on_response_complete()
        self._answers += 1
        if self._send_timer is None:
            self._watch_sending()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Called where the parser gives up."""
        self._refuse(self._refusal or MalformedRequest("what came is not valid HTTP/1.1"))

    def _await_head(self) -> None:
        self._header_timer = self.loop.call_later(self._limits.header_timeout_s, self._head_is_late)

    def _head_is_here(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _head_is_late(self) -> None:
        self._header_timer = None
        if self._in_head:
            most = f"{self._limits.header_timeout_s:g} s (limits.header_timeout_s)"
            self._refuse(RequestTimeout(f"the headers were not whole after {most}"))
        else:
            self.transport.close()

    def _watch_sending(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unsent = (self._answers, left)
        self._send_timer = self.loop.call_later(self._limits.send_timeout_s, self._check_sending) if left else None

    def _check_sending(self) -> None:
        answers, before = self._unsent
        if answers == self._answers and self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_sending()

    def _refuse(self, error: ServiceError) -> None:
        """Take in nothing more. Accepted requests are answered; only without any is the error the answer."""
        self._refused = True
        self._head_is_here()
        last = self.cycle
        if last is None or last.response_complete:
            self._answer(error)
        elif any(waiting is last for waiting, _ in self.pipeline) and last.more_body:
            last.scope["state"][REFUSAL] = error
            last.more_body = False
            last.message_event.set()
        elif not last.more_body:
            last.keep_alive = False
        elif last.response_started:
            self.transport.close()
        else:
            last.disconnected = True
            last.message_event.set()
            self._answer(error)

    def _answer(self, error: ServiceError) -> None:
        """The error as an answer to no request; then what is sent on is dropped for a while, or the answer is lost."""
        request_id = uuid.uuid4().hex
        document = unanswered(error, request_id).encode()
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(document)),
            REQUEST_ID: request_id,
            "connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[error.status] + lines.encode() + b"\r\n" + document)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"path and headers, or what stands between chunks, have over {MOST_HEAD_BYTES} bytes")


def allow_descriptors(connections: int) -> None:
    """Let the process open so many connections, as far as the system allows it."""
    wanted = connections + 2 * SPARE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        logger.warning("%d open files are allowed; limits.max_connections = %d needs more", most, connections)
