"""Every error as `application/problem+json`, in one place."""

import logging
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from reward_service.errors import (
    ClientGone,
    InvalidRequest,
    MalformedRequest,
    Overloaded,
    RouteNotFound,
    ServiceError,
    Unauthorized,
)
from reward_service.problems import sentences
from reward_service.schemas import Problem

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "x-request-id"
MOST_PROBLEMS = 20
UNREADABLE = "it is not UTF-8, nested too deeply, or has a number of too many digits"
logger = logging.getLogger("reward_service")


def install(app: FastAPI) -> None:
    """Let `app` answer every error as a problem document."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses besides the common ones."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _phrase(status), "content": {MEDIA_TYPE: schema}} for status in sorted({*statuses, 500})
    }


def _phrase(status: int) -> str:
    """The standard phrase of a status; 499 is not standard but widely used."""
    return ClientGone.title if status == ClientGone.status else HTTPStatus(status).phrase


async def _service_error(request: Request, error: Exception) -> Response:
    return answer(request, cast(ServiceError, error))


async def _validation_error(request: Request, error: Exception) -> Response:
    details = cast(RequestValidationError, error).errors()
    if reason := next((reason for reason in map(_unreadable, details) if reason), None):
        return answer(request, MalformedRequest(reason))
    problems = [problem for detail in details for problem in _located(request, detail)]
    return answer(request, InvalidRequest("; ".join(problems[:MOST_PROBLEMS]), problems))


def _unreadable(detail: dict[str, Any]) -> str | None:
    """Why a body is no JSON at all, if that is what the validation error says."""
    if detail["type"] == "json_invalid":
        return f"the body is not valid JSON: {detail['ctx']['error']} at character {detail['loc'][-1]}"
    if isinstance(detail.get("input"), bytes):
        return "the body was not read as JSON; send it with the header content-type: application/json"
    return None


def _located(request: Request, detail: dict[str, Any]) -> list[str]:
    """The sentence of one validation error; its path is that of the body's field or of the parameter."""
    where, *rest = detail["loc"]
    if where == "body":
        return sentences([{**detail, "loc": tuple(rest)}], _body_type(request), "" if rest else "body")
    return sentences([{**detail, "loc": tuple(rest)}], None)


def _body_type(request: Request) -> object:
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    return field.field_info.annotation if field else None


async def _http_error(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    if error.status_code == MalformedRequest.status:
        return answer(request, MalformedRequest(f"the body is not valid JSON: {UNREADABLE}"))
    if error.status_code == RouteNotFound.status:
        return answer(request, no_route(request.url.path))
    phrase = HTTPStatus(error.status_code).phrase
    detail, headers = str(error.detail), {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not served at {request.url.path}; /docs lists what is"
        headers["allow"] = ", ".join(_served_methods(request))
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return _problem(request, error.status_code, code, phrase, detail, (), headers)


def _served_methods(request: Request) -> list[str]:
    """The methods of every route at the path; Starlette names those of the first."""
    routes: Sequence[APIRoute] = request.app.state.routes
    at_path = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in route.methods or ()})


def no_route(path: str) -> RouteNotFound:
    """That nothing is served at a path."""
    return RouteNotFound(f"no route {path}; /docs lists them")


async def _unexpected_error(request: Request, error: Exception) -> Response:
    logger.error(
        "request %s failed", request.state.request_id, exc_info=error, extra={"request_id": request.state.request_id}
    )
    return _problem(request, 500, "internal_error", "Internal error", "unexpected; the log has this request_id", (), {})


def answer(request: Request, error: ServiceError) -> Response:
    """An error as the answer to a request."""
    problems = error.problems if isinstance(error, InvalidRequest) else ()
    if isinstance(error, Overloaded):
        request.app.state.service.metrics.retry_after_seconds.observe(error.retry_after_s)
    return _problem(request, error.status, error.code, error.title, error.detail, problems, _headers(error))


def unanswered(error: ServiceError, request_id: str) -> str:
    """The problem document of an error for which there is no request: what came was not one."""
    return _document(error.status, error.code, error.title, error.detail, (), request_id)


def _headers(error: ServiceError) -> dict[str, str]:
    """The headers that HTTP wants beside a status."""
    if isinstance(error, Overloaded):
        return {"retry-after": str(math.ceil(error.retry_after_s))}
    return {"www-authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


def _problem(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    problems: Sequence[str],
    headers: dict[str, str],
) -> Response:
    request.app.state.service.metrics.errors.labels(code).inc()
    headers = {**headers, REQUEST_ID: request.state.request_id}  # here too: an unexpected error passes no middleware
    document = _document(status, code, title, detail, problems, request.state.request_id)
    return Response(document, status, headers, MEDIA_TYPE)


def _document(status: int, code: str, title: str, detail: str, problems: Sequence[str], request_id: str) -> str:
    return Problem(
        type=f"urn:reward-service:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        problems=list(problems),
    ).model_dump_json()
