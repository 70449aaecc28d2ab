"""vLLM's `POST /classify` at the root: the raw outputs of one model, as a vLLM server that hosts it answers."""

from collections.abc import Sequence
from functools import cached_property
from inspect import Parameter, Signature
from typing import Annotated

import numpy as np
from fastapi import Query, Request, Response

from reward_service.api.deps import while_connected
from reward_service.api.dialects.asked import Asked, Parameters, said_in_query
from reward_service.api.dialects.extended import OpenAIDialect
from reward_service.api.dialects.reading import read
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.api.dialects.vllm import VllmClassified, VllmInput, classified, pooled
from reward_service.errors import InvalidRequest
from reward_service.schemas import Conversation, ScoreAnswer, ScoreRequest
from reward_service.schemas.base import Json
from reward_service.service import Service
from reward_service.telemetry import Stage

router = dialect_router()


class ModelBatch(VllmInput):
    """What is sent to a model. vLLM's default is to apply the activation: sigmoid, or softmax of several labels.

    `activation` is the older name of `use_activation`. `model` may be left out where one model is loaded.
    """

    use_activation: bool | None = None
    activation: bool | None = None

    @property
    def is_activated(self) -> bool:
        """Whether probabilities are wanted."""
        chosen = self.activation if self.use_activation is None else self.use_activation
        return True if chosen is None else chosen


class ModelClassify(OpenAIDialect[ModelBatch, Parameters]):
    """The outputs of a model for each text: raw, or activated as a vLLM server does unless told otherwise."""

    body, parameters = ModelBatch, Parameters
    answer = VllmClassified
    input = "raw"
    item = "input"

    @cached_property
    def __signature__(self) -> Signature:
        """What FastAPI documents: the body and the query."""
        kind, query = Parameter.KEYWORD_ONLY, Annotated[Parameters, Query()]
        return Signature([Parameter("body", kind, annotation=ModelBatch), Parameter("query", kind, annotation=query)])

    async def _serve(self, request: Request) -> Response:
        service: Service = request.app.state.service
        parameters = said_in_query(request, Parameters)
        with Stage("parse"):
            body = await read(request, ModelBatch)
            said = Asked(_model(service, body.model), parameters.input or self.input, parameters)
            conversations = await self._parsed(service, body, said)
        answer = await while_connected(request, self.scored(service, said, conversations))
        return self.answered(body, said, answer)

    def parse(self, body: ModelBatch, asked: Asked[Parameters]) -> list[Conversation]:
        """Each text, or the messages, as a conversation."""
        return body.conversations(asked)

    async def score(self, service: Service, request: ScoreRequest) -> ScoreAnswer:
        """The raw outputs of the model."""
        return await service.scoring.raw(request.objective or "", request)

    def render(self, body: ModelBatch, asked: Asked[Parameters], answer: ScoreAnswer) -> Json:
        """vLLM's answer."""
        rows = [[term.raw for term in score.terms if term.raw is not None] for score in answer.scores]
        numbers = [activated(row) for row in rows] if body.is_activated else rows
        data = [classified(str(answer.recipe.terms[int(np.argmax(row))].label), row) for row in numbers]
        return pooled("classify", answer, data) | {"model": asked.objective}


def activated(outputs: Sequence[float]) -> list[float]:
    """Probabilities: the sigmoid of a single raw output, the softmax of several."""
    raw = np.asarray(outputs)
    if len(raw) == 1:
        return [float(one) for one in (1 + np.tanh(raw / 2)) / 2]
    powers = np.exp(raw - raw.max())
    return [float(one) for one in powers / powers.sum()]


def _model(service: Service, name: str | None) -> str:
    names = sorted(service.catalog.models)
    if name is None and len(names) != 1:
        raise InvalidRequest(f"model: required, since several models are loaded; valid: {', '.join(names)}")
    return names[0] if name is None else name


add_route(router, "/classify", ModelClassify(), "vLLM's /classify: the outputs of a model")
