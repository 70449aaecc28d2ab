"""Errors for trainers that look for a member of their own: the problem document, with that member beside the others."""

import json

from fastapi import Request, Response

from reward_service.api import problem
from reward_service.api.dialects.dialect import B, Dialect, P
from reward_service.errors import ServiceError
from reward_service.schemas.base import Json


def extended(request: Request, error: ServiceError, members: dict[str, Json]) -> Response:
    """The problem document of an error (RFC 9457 allows more members), with the same status and headers."""
    told = problem.answer(request, error)
    headers = {name: value for name, value in told.headers.items() if name not in ("content-length", "content-type")}
    document = json.loads(bytes(told.body)) | members
    return Response(json.dumps(document), told.status_code, headers, problem.MEDIA_TYPE)


class OpenAIDialect(Dialect[B, P]):
    """A dialect whose trainer looks for the `error` object of OpenAI and vLLM."""

    def error(self, request: Request, error: ServiceError) -> Response:
        """An error with that object."""
        told = {"message": error.detail, "type": error.code, "param": None, "code": error.status}
        return extended(request, error, {"error": told})
