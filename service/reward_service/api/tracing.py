"""What is noted of each request: its id, metrics, access line and span, as one plain ASGI middleware."""

import logging
import re
import time
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reward_service.api.problem import REQUEST_ID
from reward_service.api.receiving import headers_of
from reward_service.service import Service
from reward_service.telemetry import ACCESS, RequestContext, Traces, working_for

PROBES = ("/health", "/ready", "/metrics")
ID_HEADER = REQUEST_ID.encode()
UNROUTED = "unknown"
"""The route of a path that is none: paths themselves are the caller's, and there is no end of them."""
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
access = logging.getLogger(ACCESS)


@dataclass(slots=True)
class Served:
    """How one request went; 500 until an answer has started."""

    scope: Scope
    request: RequestContext
    started: float
    status: int = 500

    @property
    def route(self) -> str:
        """The route's template: a path or a query may hold what a caller would not see in a log."""
        return getattr(self.scope.get("route"), "path", UNROUTED)

    @property
    def key(self) -> str | None:
        """Name of the API key."""
        name: str | None = self.scope["state"].get("api_key_name")
        return name


class Tracing:
    """Gives each request an id (the caller's, if it sent a sane one), and notes its route, status and time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = headers_of(scope).get(ID_HEADER, b"").decode("latin-1")
        request_id = given if _ACCEPTABLE.fullmatch(given) else token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        served = Served(scope, RequestContext(request_id), time.perf_counter())
        own = (ID_HEADER, request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
                headers = message["headers"]
                message["headers"] = headers if own in headers else [*headers, own]  # a problem brings it already
            await send(message)

        service: Service = scope["app"].state.service
        service.metrics.in_progress.inc()
        with working_for(served.request):
            try:
                await self._traced(served, receive, send_with_id)
            finally:
                service.metrics.in_progress.dec()
                _note(service, served)

    async def _traced(self, served: Served, receive: Receive, send: Send) -> None:
        traces: Traces | None = served.scope["app"].state.service.traces
        if traces is None:
            await self._app(served.scope, receive, send)
            return
        method = served.scope["method"]
        with traces.serving(served.request, method, Headers(scope=served.scope)) as span:
            try:
                await self._app(served.scope, receive, send)
            finally:
                traces.answered(span, method, served.route, served.status)


def _note(service: Service, served: Served) -> None:
    seconds, route = time.perf_counter() - served.started, served.route
    service.metrics.on_request(route, served.status, seconds, stages=served.request.stages, key=served.key)
    wanted = service.config.telemetry.access_log
    if wanted == "all" or (wanted == "requests" and route not in PROBES):
        _write_access_line(served, seconds)


def _write_access_line(served: Served, seconds: float) -> None:
    level = logging.INFO if served.status < 500 else logging.WARNING
    if not access.isEnabledFor(level):
        return
    request, method, route = served.request, served.scope["method"], served.route
    fields: dict[str, Any] = {
        "method": method,
        "route": route,
        "status": served.status,
        "milliseconds": round(1e3 * seconds, 3),
        "key": served.key,
        "conversations": request.conversations,
        "tokens": request.tokens,
        "stages_ms": {stage: round(1e3 * taken, 3) for stage, taken in request.stages.items()} or None,
    }
    # A record made here saves the search for who logs, which takes as long as all the rest.
    told = (method, route, served.status)
    access.handle(access.makeRecord(ACCESS, level, __file__, 0, "%s %s %d", told, None, extra={"fields": fields}))
