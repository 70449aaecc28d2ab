"""From a request's JSON to a dialect's body, and from the texts in it to conversations."""

import json
from collections.abc import Sequence
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from reward_service.api.checked import check_size
from reward_service.api.problem import UNREADABLE
from reward_service.errors import InvalidRequest, MalformedRequest
from reward_service.problems import nearest, sentences, shown

MOST_NAMES = 8


class Body(BaseModel):
    """What a trainer sends. Fields that are not used are let be: a new version of a trainer may add some."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


B = TypeVar("B", bound=BaseModel)


async def read(request: Request, body: type[B]) -> B:
    """The body of a request; MalformedRequest or InvalidRequest say what is wrong with it, TooLarge that it is."""
    if "json" not in request.headers.get("content-type", ""):
        raise MalformedRequest("the body was not read as JSON; send it with the header content-type: application/json")
    content = await request.body()
    try:
        document = json.loads(content)
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"the body is not valid JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise MalformedRequest(f"the body is not valid JSON: {UNREADABLE}") from None
    check_size(request, document)
    try:
        return body.model_validate(document)
    except ValidationError as error:
        problems = sentences(error.errors(), body, "" if isinstance(document, dict) else "body")
        raise invalid([*problems, *_named_otherwise(document, body)]) from None


def invalid(problems: Sequence[str]) -> InvalidRequest:
    """The error of so many problems."""
    return InvalidRequest("; ".join(problems), problems)


def _named_otherwise(document: object, body: type[BaseModel]) -> list[str]:
    """The names of fields that this dialect does not know, where one of its own is missing: it may be misspelt."""
    if not isinstance(document, dict) or all(
        name in document for name, field in body.model_fields.items() if field.is_required()
    ):
        return []
    unknown = [name for name in document if name not in body.model_fields][:MOST_NAMES]
    return [f"unknown field {shown(name)}{nearest(name, body.model_fields)}" for name in unknown]
