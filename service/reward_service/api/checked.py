"""What is checked before a request is validated: unknown query parameters, and a body that is far too large."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from reward_service.errors import InvalidRequest, TooLarge
from reward_service.problems import nearest, shown

MOST_FIELDS = 64
"""No request has so many fields; to name each of a million unknown ones would take gigabytes."""
Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class CheckedRoute(APIRoute):
    """A route that refuses unknown query parameters, which are most likely misspelt, and too many conversations."""

    def get_route_handler(self) -> Handle:
        """What serves a request."""
        ordinary = super().get_route_handler()
        known = [field.alias for field in self.dependant.query_params]
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                _check_parameters(request, known)
            if takes_body:
                check_size(request, await _document(request))
            return await ordinary(request)

        return handle


def check_size(request: Request, document: object) -> None:
    """TooLarge, or InvalidRequest, for a body that need not be looked at any closer."""
    if not isinstance(document, dict):
        return
    if len(document) > MOST_FIELDS:
        raise InvalidRequest(f"body: {len(document)} fields; no request has more than {MOST_FIELDS}")
    most = request.app.state.service.config.limits.max_request_conversations
    conversations = document.get("conversations")
    if isinstance(conversations, list) and len(conversations) > most:
        raise TooLarge(
            f"conversations: {len(conversations)} in one request; at most {most} (limits.max_request_conversations)"
        )


async def _document(request: Request) -> object:
    """The body as JSON, which FastAPI will not read a second time; None when it is none, which FastAPI will tell."""
    if "json" not in request.headers.get("content-type", ""):
        return None
    try:
        return await request.json()
    except (ValueError, RecursionError):
        return None


def _check_parameters(request: Request, known: Sequence[str]) -> None:
    """InvalidRequest for a query parameter that is unknown, or given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    problems = [f"query: unknown parameter {shown(name)}{nearest(name, known)}" for name in names if name not in known]
    problems += [f"query: {name!r} is given more than once" for name in known if names.count(name) > 1]
    if problems:
        raise InvalidRequest("; ".join(problems), problems)
