"""What every request and answer shares, and how an error looks."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat


def unicode_text(text: str) -> str:
    """The text, if it can be written as UTF-8: JSON may smuggle in half a surrogate pair, and no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half of a surrogate pair, which is not valid Unicode") from error
    return text


T = TypeVar("T")
Items = Annotated[list[T], Field(fail_fast=True)]
"""A list whose first wrong item is told, and no other: there may be millions."""
Json = Any
Label = int | str
Text = Annotated[str, AfterValidator(unicode_text)]
Policy = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Reward = Annotated[FiniteFloat, Field(ge=-1e30, le=1e30)]
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
