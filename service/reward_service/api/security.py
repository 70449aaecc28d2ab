"""API keys: where any are configured, a request needs one whose scopes open its route."""

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
SCHEME_DOCUMENT = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key with the scope that the operation names; without configured keys none is asked for.",
}
OPEN: dict[str, Any] = {"security": []}
"""The `openapi_extra` of a route that needs no key."""


def needs(scope: KeyScope) -> dict[str, Any]:
    """The `openapi_extra` of a route that a key with this scope opens; what is documented is what is enforced."""
    return {"security": [{SCHEME: [scope]}]}


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
        needed = [name for one in declared or () for name in one[SCHEME]]
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
            raise Unauthorized("no API key; send it as the header authorization: Bearer KEY")
        scheme, _, sent = given[0].partition(b" ")
        digest = hashlib.sha256(sent.strip()).digest()
        found = [key for key, known in self._keys if hmac.compare_digest(known, digest)]  # all, whichever it is
        if len(given) > 1 or scheme.lower() != b"bearer" or not found:
            raise Unauthorized("the API key is not one of this service, or not sent as authorization: Bearer KEY")
        return found[0]
