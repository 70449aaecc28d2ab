"""Routes made of dialects: documented as any other, served by the dialect itself."""

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from reward_service.api.checked import Handle
from reward_service.api.dialects.dialect import Dialect
from reward_service.api.problem import documented
from reward_service.api.security import needs

STATUSES = (400, 404, 409, 413, 422, 429, 499, 503, 504)


class DialectRoute(APIRoute):
    """A route whose endpoint is a dialect: it reads the request itself, so that its errors too are in its own form."""

    endpoint: Dialect[Any, Any]

    def get_route_handler(self) -> Handle:
        """What serves a request."""
        return self.endpoint.__call__


def dialect_router() -> APIRouter:
    """A router for the routes of dialects."""
    return APIRouter(tags=["trainers"], route_class=DialectRoute)


def add_route(
    router: APIRouter,
    path: str,
    dialect: Dialect[Any, Any],
    summary: str,
    responses: dict[int | str, Any] | None = None,
) -> None:
    """Serve a dialect at POST `path`, which names the objective as `{objective}`."""
    router.add_api_route(
        path,
        dialect,
        methods=["POST"],
        name=type(dialect).__name__,
        summary=summary,
        description=type(dialect).__doc__,
        response_model=dialect.answer,
        responses=documented(*STATUSES) if responses is None else responses,
        openapi_extra=needs("score"),
    )
