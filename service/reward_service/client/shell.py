"""What Client and AsyncClient have in common besides the calls: options, pin, and what they do with httpx."""

import ssl
from collections.abc import Sequence
from functools import cache
from typing import Any, Generic, TypeVar

import httpx

from reward_service.client.agreeing import Identity, Pin
from reward_service.client.settings import Options, Settings
from reward_service.client.steps import Reply, Send

Transport = TypeVar("Transport")
Held = dict[str | None, Identity]
LOSSES = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError, httpx.DecodingError)
"""Failures of the way to a service. Any other exception of httpx is a mistake in the request."""
CONNECT_S = 5.0
KEEP_ALIVE_S = 30.0
"""Shorter than services and proxies keep idle connections, so that none is closed just as it is used again."""
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_S)
"""Slots are the bound. A pool with a bound of its own loses places to requests that are cancelled."""


class Shell(Generic[Transport]):
    """The state of a client that does not belong to one process.

    A client may be pickled, and used after a fork: it connects anew where it arrives, and a pinned one stays pinned.
    The pickle holds the API key.
    """

    def __init__(self, base_url: str | Sequence[str], transport: Transport | None, options: Options) -> None:
        self._begin(Settings(base_url, **options), transport, {})

    def _begin(self, settings: Settings, transport: Transport | None, held: Held) -> None:
        self._settings = settings
        self._transport = transport
        self._pin = Pin(dict(held), settings.expect)
        self._is_closed = False

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"{self!r} is closed; make a new one")

    def expectation(self, objective: str | None = None) -> dict[str, Any] | None:
        """What the next answer for an objective must name: give it to the client of a resumed run as `expect`.

        None as long as nothing is expected.
        """
        return self._pin.expectation(objective)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings.urls)})"

    def __getstate__(self) -> tuple[Any, ...]:
        return self._settings, self._transport, dict(self._pin.held)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._begin(*state)


@cache
def tls() -> ssl.SSLContext:
    """How https is checked, read from the disk once for all connections."""
    return httpx.create_ssl_context()


def arguments(send: Send) -> dict[str, Any]:
    """How httpx is asked to send a request."""
    return {
        "method": send.method,
        "url": send.url,
        "headers": dict(send.headers),
        "content": send.content,
        "params": dict(send.params) or None,
        "timeout": httpx.Timeout(send.timeout_s, connect=min(CONNECT_S, send.timeout_s), pool=None),
    }


def reply(response: httpx.Response, content: bytes) -> Reply:
    """The reply, once its whole content is there."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, content)


def late(send: Send) -> httpx.ReadTimeout:
    """What a try is lost by that takes too long as a whole."""
    return httpx.ReadTimeout(f"no whole answer within {send.timeout_s:.1f} s")
