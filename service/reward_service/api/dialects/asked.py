"""What a dialect's URL says: which objective, how texts are read, what is expected of the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from fastapi import Request
from pydantic import Field, ValidationError

from reward_service.api.dialects.reading import invalid
from reward_service.config import InputMode
from reward_service.problems import sentences
from reward_service.schemas import Expectation
from reward_service.schemas.base import Request as Strict
from reward_service.service import Service


class Parameters(Strict):
    """Query parameters of every dialect; `modes` are the input modes that it has, for an objective to choose from."""

    modes: ClassVar[Sequence[InputMode]] = ("messages", "raw", "reparse")

    input: InputMode | None = Field(
        None,
        description="messages: as given; raw: text that is tokenized as it is; reparse: rebuilt from the policy's "
        "rendered text. Without it the objective's `input`, or else the dialect's own",
    )
    finish: Literal["marked", "unknown"] = Field(
        "marked",
        description="for reparse. marked: a response without an end-of-turn was cut at the length limit; "
        "unknown: the trainer drops the end-of-turn, so nothing is known",
    )
    objective_hash: str | None = Field(None, description="answer 409 unless the objective still has this hash")


class OnlyMessages(Parameters):
    """Query parameters of a dialect whose trainer sends nothing but messages."""

    modes: ClassVar[Sequence[InputMode]] = ("messages",)
    input: Literal["messages"] | None = Field(None, description="there is no other way to read messages")


P = TypeVar("P", bound=Parameters, covariant=True)


@dataclass(frozen=True, slots=True)
class Asked(Generic[P]):
    """An objective by name, the input mode that applies, and the query parameters as given."""

    objective: str
    input: InputMode
    parameters: P

    @property
    def expect(self) -> Expectation | None:
        """What the caller expects of the server."""
        expected = self.parameters.objective_hash
        return None if expected is None else Expectation(objective_hash=expected)

    @property
    def knows_finish(self) -> bool:
        """Whether a missing end-of-turn means that the response was cut."""
        return self.parameters.finish == "marked"


def asked(request: Request, parameters: type[P], default: InputMode) -> Asked[P]:
    """What the URL of a request says; InvalidRequest names every parameter that is wrong."""
    given = said_in_query(request, parameters)
    objective: str = request.path_params["objective"]
    configured = _configured(request.app.state.service, objective)
    fitting = configured if configured in parameters.modes else None
    return Asked(objective, given.input or fitting or default, given)


def said_in_query(request: Request, parameters: type[P]) -> P:
    """The query parameters of a request; InvalidRequest names every one that is wrong."""
    pairs = request.query_params.multi_items() if request.scope["query_string"] else []
    names = [name for name, _ in pairs]
    problems = [f"{name!r} is given more than once" for name in dict.fromkeys(names) if names.count(name) > 1]
    try:
        given = parameters.model_validate(dict(pairs))
    except ValidationError as error:
        problems += sentences(error.errors(), parameters)
    if problems:
        raise invalid([f"URL: {problem}" for problem in problems])
    return given


def _configured(service: Service, objective: str) -> InputMode | None:
    """The objective's own input mode; None also for an objective that there is not, which scoring tells."""
    return next((one.input for one in service.config.objectives if one.name == objective), None)
