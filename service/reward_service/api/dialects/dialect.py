"""What every dialect shares: a request is read, scored by the one path, waited for, and answered in its own form."""

import asyncio
import json
import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from functools import cached_property, partial
from inspect import Parameter, Signature
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from fastapi import Query, Request, Response
from pydantic import BaseModel, ValidationError

from reward_service.api import problem
from reward_service.api.deps import while_connected
from reward_service.api.dialects.asked import Asked, Parameters, asked
from reward_service.api.dialects.patience import patiently
from reward_service.api.dialects.reading import invalid, read
from reward_service.config import InputMode
from reward_service.errors import ServiceError, TooLarge
from reward_service.problems import sentences
from reward_service.schemas import Conversation, ScoreAnswer, ScoreRequest
from reward_service.schemas.base import Json
from reward_service.service import Service
from reward_service.telemetry import Stage

B = TypeVar("B", bound=BaseModel)
P = TypeVar("P", bound=Parameters)
log = logging.getLogger(__name__)
MEDIA_TYPE = "application/json"
STRICT = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
INLINE = 64
LOCATION = re.compile(r"conversations(\[\d+\])")


class Dialect(ABC, Generic[B, P]):
    """A trainer's wire form: how its body becomes conversations, and how the answer and an error look to it.

    `body` and `parameters` are what it sends, `answer` what it reads, `input` how its texts are read unless somebody
    says otherwise. `item` names the field that holds a list of them, for errors. `patience_s` is how long the trainer
    itself waits for an answer.
    """

    body: type[B]
    parameters: type[P]
    answer: ClassVar[Any]
    input: ClassVar[InputMode]
    item: ClassVar[str] = ""
    patience_s: ClassVar[float] = math.inf

    @abstractmethod
    def parse(self, body: B, asked: Asked[P]) -> Sequence[Conversation]:
        """The conversations to score; InvalidRequest or ReparseFailed say which one cannot be read."""

    @abstractmethod
    def render(self, body: B, asked: Asked[P], answer: ScoreAnswer) -> Json:
        """The answer as the trainer reads it; every conversation has a reward."""

    def error(self, request: Request, error: ServiceError) -> Response:
        """An error as the trainer reads it: never a number, and never a status of success."""
        return problem.answer(request, error)

    async def __call__(self, request: Request) -> Response:
        """Serve one request."""
        try:
            return await self._serve(request)
        except ServiceError as error:  # some trainers look at no status, and say nothing of the answer
            log.warning("no reward for %s: %s", type(self).__name__, error.code)
            return self.error(request, error)

    @cached_property
    def __signature__(self) -> Signature:
        """What FastAPI documents: the path's objective, the body and the query."""
        kind = Parameter.KEYWORD_ONLY
        return Signature(
            [
                Parameter("objective", kind, annotation=str),
                Parameter("body", kind, annotation=self.body),
                Parameter("query", kind, annotation=Annotated[self.parameters, Query()]),
            ]
        )

    async def _serve(self, request: Request) -> Response:
        said = asked(request, self.parameters, self.input)
        with Stage("parse"):
            body = await read(request, self.body)
            conversations = await self._parsed(request.app.state.service, body, said)
        answer = await while_connected(request, self.scored(request.app.state.service, said, conversations))
        return self.answered(body, said, answer)

    def answered(self, body: B, said: Asked[P], answer: ScoreAnswer) -> Response:
        """The answer as the trainer reads it, with headers that say where its numbers come from."""
        with Stage("serialise"):
            content = STRICT.encode(self.render(body, said, answer))
        return Response(content, headers=provenance(said, answer), media_type=MEDIA_TYPE)

    async def _parsed(self, service: Service, body: B, said: Asked[P]) -> Sequence[Conversation]:
        count, most = len(getattr(body, self.item)) if self.item else 1, service.config.limits.max_request_conversations
        if count > most:
            raise TooLarge(f"{self.item}: {count} in one request; at most {most} (limits.max_request_conversations)")
        work = partial(self.parse, body, said)
        try:
            return work() if count <= INLINE else await asyncio.to_thread(work)
        except ValidationError as error:
            raise invalid(sentences(error.errors(), Conversation)) from None

    async def scored(self, service: Service, said: Asked[P], conversations: Sequence[Conversation]) -> ScoreAnswer:
        """The scores of conversations, each with a reward; the first that has none is raised as its error.

        Waits for room as long as the request and the trainer allow.
        """
        most_s = min(service.config.limits.request_timeout_s, self.patience_s)
        request = ScoreRequest(
            objective=said.objective, conversations=list(conversations), expect=said.expect, timeout_s=most_s
        )
        try:
            return await patiently(partial(self.score, service, request), most_s)
        except ServiceError as error:
            raise self._located(error) from error.__cause__

    async def score(self, service: Service, request: ScoreRequest) -> ScoreAnswer:
        """The one path, once."""
        return await service.scoring.score(request, strict=True, with_references=False)

    def _located(self, error: ServiceError) -> ServiceError:
        """The error with the trainer's name for what was scored; one that sends a single sample needs none."""
        found = LOCATION.match(error.detail)
        if not found:
            return error
        located, rest = copy(error), error.detail[found.end() :]
        located.detail = f"{self.item}{found[1]}{rest}" if self.item else rest.lstrip(".: ")
        return located


def provenance(said: Asked[Parameters], answer: ScoreAnswer) -> dict[str, str]:
    """Headers that say where the numbers of an answer come from."""
    return {
        "x-reward-objective-hash": answer.objective_hash,
        "x-reward-input": said.input,
        "x-reward-models": ", ".join(f"{name}={used.fingerprint}" for name, used in answer.models.items()),
    }
