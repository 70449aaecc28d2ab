"""A shorter way for the requests that come by the thousand: straight from JSON to the endpoint and back."""

import json
from typing import Any, get_type_hints

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter
from starlette.types import Message, Receive, Scope, Send

from reward_service.api.checked import CheckedRoute, check_size
from reward_service.api.receiving import again, headers_of
from reward_service.telemetry import Stage

MEDIA_TYPE = "application/json"
JSON = MEDIA_TYPE.encode()


class DirectRoute(CheckedRoute):
    """A route for an endpoint that takes `request`, a model as `body`, and `service`; query parameters have defaults.

    A valid body without a query goes straight to it. Everything else takes FastAPI's way, which tells what is wrong:
    the same endpoint and the same answer, for about two fifths more of a small request's time.
    """

    def __init__(self, path: str, endpoint: Any, **how: Any) -> None:
        super().__init__(path, endpoint, **how)
        self._body_type: type[BaseModel] = get_type_hints(endpoint)["body"]
        self._answers: TypeAdapter[Any] = TypeAdapter(self.response_model)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        message = await receive()
        request = Request(scope, receive, send)
        body = self._valid_body(request, message)
        if body is None:
            await super().handle(scope, again(message, receive), send)
            return
        answer = await self.endpoint(request=request, body=body, service=request.app.state.service)
        with Stage("serialise"):
            content = self._answers.dump_json(answer, exclude_unset=self.response_model_exclude_unset)
        await Response(content, media_type=MEDIA_TYPE)(scope, receive, send)

    def _valid_body(self, request: Request, message: Message) -> BaseModel | None:
        """The body; None when there is anything about the request that needs more than that."""
        if request.method not in (self.methods or ()) or request.scope["query_string"]:
            return None
        if headers_of(request.scope).get(b"content-type") != JSON or message.get("more_body"):
            return None
        try:
            with Stage("parse"):
                document = json.loads(message.get("body", b""))
                check_size(request, document)
                return self._body_type.model_validate(document)
        except (ValueError, RecursionError):
            return None
