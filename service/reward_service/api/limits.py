"""What may come in: bodies of bounded size, sent in bounded time, and only so many at once."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from reward_service.api.receiving import again, headers_of
from reward_service.api.refusing import Incoming, refuse
from reward_service.config import LimitsConfig
from reward_service.errors import ClientGone, Overloaded, RequestTimeout, ServiceError, TooLarge, UnsupportedEncoding

REFUSAL = "refusal"
"""Key of the scope's state under which a connection that may not be served brings its ServiceError."""
ALWAYS_SERVED = "/health"
RETRY_S = 1.0


class Limits:
    """Takes in the whole body of a request, or refuses it, before anything looks at it."""

    def __init__(self, app: ASGIApp, limits: LimitsConfig) -> None:
        self._app = app
        self._limits = limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        incoming = Incoming(receive)
        try:
            _check_connection(scope)
            body = await self._in_time(incoming) if self._brings_a_body(headers_of(scope)) else b""
        except ServiceError as error:
            await refuse(error, scope, incoming, send)
            return
        try:
            whole = {"type": "http.request", "body": body, "more_body": False}
            await self._app(scope, again(whole, receive) if incoming.ended else receive, send)
        finally:
            self._held -= len(body)

    def _brings_a_body(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether there is a body to take in; raises what its headers alone forbid."""
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if encoding.lower() != "identity":
            raise UnsupportedEncoding(f"content-encoding: {encoding!r} is not undone here; send the body as it is")
        length = headers.get(b"content-length", b"")
        self._check_size(int(length) if length.isdigit() else 0)
        return bool(length) or b"transfer-encoding" in headers

    async def _in_time(self, incoming: Incoming) -> bytes:
        most_s = self._limits.body_timeout_s
        try:
            async with asyncio.timeout(most_s):
                return await self._whole(incoming)
        except TimeoutError:
            raise RequestTimeout(f"the body was not whole after {most_s:g} s (limits.body_timeout_s)") from None

    async def _whole(self, incoming: Incoming) -> bytes:
        body = bytearray()
        try:
            while not incoming.ended:
                message = await incoming()
                if message["type"] == "http.disconnect":
                    raise ClientGone("the caller closed the connection before its request was whole")
                part = message.get("body", b"")
                body += part
                self._held += len(part)
                self._check_size(len(body))
                self._check_room()
        except BaseException:
            self._held -= len(body)
            raise
        return bytes(body)

    def _check_size(self, size: int) -> None:
        most = self._limits.max_request_bytes
        if size > most:
            raise TooLarge(f"the body has {size} bytes or more; at most {most} (limits.max_request_bytes)")

    def _check_room(self) -> None:
        most = self._limits.max_held_bytes
        if self._held > most:
            raise Overloaded(
                f"the bodies of all requests hold more than {most} bytes (limits.max_held_bytes)", retry_after_s=RETRY_S
            )


def _check_connection(scope: Scope) -> None:
    refusal: ServiceError | None = scope["state"].get(REFUSAL)
    if refusal is not None and scope["path"] != ALWAYS_SERVED:
        raise refusal
