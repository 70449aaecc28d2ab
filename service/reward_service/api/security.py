"""API keys: where any are configured, a request needs one whose scopes open its route."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from reward_service.api.problem import no_route
from reward_service.api.refusing import Incoming, refuse
from reward_service.config import ApiKeyConfig
from reward_service.config.access import Scope as KeyScope
from reward_service.errors import Forbidden, ServiceError, Unauthorized

SCHEME = "api_key"
IN_URL = "api_key_in_url"
SCHEME_DOCUMENTS = {
    SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key with the scope that the operation names; without configured keys none is asked for.",
    },
    IN_URL: {
        "type": "http",
        "scheme": "basic",
        "description": "The same key as the password of any user: for callers that take no header, only a URL "
        "(`http://any:KEY@host/`).",
    },
}
WAYS = "authorization: Bearer KEY, or in the URL as http://any:KEY@host/"
OPEN: dict[str, Any] = {"security": []}
"""The `openapi_extra` of a route that needs no key."""


def needs(scope: KeyScope) -> dict[str, Any]:
    """The `openapi_extra` of a route that a key with this scope opens; what is documented is what is enforced."""
    return {"security": [{SCHEME: [scope]}, {IN_URL: [scope]}]}


class Guard:
    """Refuses, before anything of its body is read, a request whose key does not open its route.

    A route that declares neither a scope nor that it is open is closed to every key.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKeyConfig], routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._keys = [(key, bytes.fromhex(key.sha256)) for key in keys]
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            if self._keys and scope["type"] == "http":
                self._admit(scope)
        except ServiceError as error:
            await refuse(error, scope, Incoming(receive), send)
        else:
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        route = self._route(scope)
        declared = (route.openapi_extra or {}).get("security") if route else None
        if declared == OPEN["security"]:
            return
        key = self._key(scope)
        scope["state"]["api_key_name"] = key.name
        if route is None:
            raise no_route(scope["path"])
        scope["route"] = route
        needed = [name for one in declared or () for name in one.get(SCHEME, ())]
        if not needed or not set(needed) <= set(key.scopes):
            raise Forbidden(
                f"{scope['method']} {route.path} needs a key with the scope {' '.join(needed) or '(none opens it)'}; "
                f"{key.name!r} has: {', '.join(key.scopes)}"
            )

    def _route(self, scope: Scope) -> APIRoute | None:
        """The route of the request's path, that of its method if there is one."""
        partial = None
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route
            if match is Match.PARTIAL:
                partial = partial or route
        return partial

    def _key(self, scope: Scope) -> ApiKeyConfig:
        """The key that the caller sent. Keys are long and random: their plain digest cannot be guessed back."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise Unauthorized(f"no API key; send it as the header {WAYS}")
        digest = hashlib.sha256(_sent(given[0])).digest()
        found = [key for key, known in self._keys if hmac.compare_digest(known, digest)]  # all, whichever it is
        if len(given) > 1 or not found:
            raise Unauthorized(f"the API key is not one of this service, or not sent as {WAYS}")
        return found[0]


def _sent(authorization: bytes) -> bytes:
    """The key in an `authorization` header: a bearer token, or the password of any user; empty if it is neither."""
    scheme, _, sent = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return sent.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(sent.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
