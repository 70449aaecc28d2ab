"""A shorter way for the requests that come by the thousand: straight from JSON to the endpoint and back."""

import json
from typing import Any, TypeVar, get_type_hints

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter

from reward_service.api.checked import CheckedRoute, Handle, check_size
from reward_service.telemetry import Stage

B = TypeVar("B", bound=BaseModel)
MEDIA_TYPE = "application/json"


class DirectRoute(CheckedRoute):
    """A route for an endpoint that takes `request`, a model as `body`, and `service`; query parameters have defaults.

    A valid body without a query goes straight to it. Everything else takes FastAPI's way, which tells what is wrong:
    the same endpoint and the same answer, for about a quarter more of a small request's time.
    """

    def get_route_handler(self) -> Handle:
        """What serves a request."""
        ordinary = super().get_route_handler()
        body_type: type[BaseModel] = get_type_hints(self.endpoint)["body"]
        answers: TypeAdapter[Any] = TypeAdapter(self.response_model)
        exclude_unset = self.response_model_exclude_unset

        async def handle(request: Request) -> Response:
            body = await valid_body(request, body_type)
            if body is None:
                return await ordinary(request)
            answer = await self.endpoint(request=request, body=body, service=request.app.state.service)
            with Stage("serialise"):
                content = answers.dump_json(answer, exclude_unset=exclude_unset)
            return Response(content, media_type=MEDIA_TYPE)

        return handle


async def valid_body(request: Request, body_type: type[B]) -> B | None:
    """The body; None when there is anything about the request that needs more than that."""
    if request.scope["query_string"] or request.headers.get("content-type") != MEDIA_TYPE:
        return None
    try:
        content = await request.body()
        with Stage("parse"):
            document = json.loads(content)
            check_size(request, document)
            return body_type.model_validate(document)
    except (ValueError, RecursionError):
        return None
