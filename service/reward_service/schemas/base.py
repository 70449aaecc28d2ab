"""What every request and answer shares, and how an error looks."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Json = Any


Label = int | str


QuantileMethod = Literal["auto", "empirical", "normal", "mean"]


class Request(BaseModel):
    """Part of a request: an unknown field is an error, since it is most likely a misspelt one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Answer(BaseModel):
    """Part of an answer: a newer server may add fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ErrorBody(Answer):
    """Why a conversation or a term has no number."""

    code: str
    title: str
    status: int
    detail: str


class Problem(Answer):
    """An error as `application/problem+json` (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    problems: Sequence[str] = ()
