"""NeMo-Gym: `POST /verify` of a resources server, one rollout per request."""

from typing import Any

from fastapi import Response
from pydantic import ConfigDict, Field

from reward_service.api.dialects.asked import Asked, OnlyMessages
from reward_service.api.dialects.dialect import Dialect
from reward_service.api.dialects.reading import Body
from reward_service.api.dialects.responses import conversation_items, tools_of
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.errors import InvalidRequest
from reward_service.schemas import Conversation, ScoreAnswer
from reward_service.schemas.base import Items, Json, Text

router = dialect_router()
SUMS = ("and", "weighted_sum")
"""Aggregations whose reward is the sum of weight x transformed."""
OUT_OF_TOKENS = "max_output_tokens"


class Open(Body):
    """An object whose other fields come back as they were sent."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class CreateParams(Open):
    """What the policy was asked, in OpenAI's Responses form."""

    input: Text | Items[dict[str, Json]]
    instructions: Text | None = None
    tools: Items[dict[str, Json]] | None = None


class Incomplete(Open):
    """Why a response ended early."""

    reason: str | None = None


class ResponseObject(Open):
    """What the policy answered, in OpenAI's Responses form."""

    output: Items[dict[str, Json]]
    incomplete_details: Incomplete | None = None


class Rollout(Open):
    """A row of the data set with what was asked and answered; the row's own fields are not used."""

    responses_create_params: CreateParams
    response: ResponseObject


class Verified(Open):
    """The request, with its reward; the components are there where they sum to the reward."""

    responses_create_params: dict[str, Json]
    response: dict[str, Json]
    reward: float
    reward_components: dict[str, float] = Field({})


class NemoGym(Dialect[Rollout, OnlyMessages]):
    """The reward of a rollout. A failure is a status, never a reward: the rollout fails, and is not trained on."""

    body, parameters = Rollout, OnlyMessages
    answer = Verified
    input = "messages"

    def parse(self, body: Rollout, asked: Asked[OnlyMessages]) -> list[Conversation]:
        """Input and output as one conversation that ends in the policy's last words (or calls)."""
        asks, said = body.responses_create_params, body.response
        given = [{"role": "user", "content": asks.input}] if isinstance(asks.input, str) else asks.input
        system = [{"role": "system", "content": asks.instructions}] if asks.instructions else []
        if not said.output:
            raise InvalidRequest("response.output: [] has nothing that the policy wrote")
        cut = said.incomplete_details is not None and said.incomplete_details.reason == OUT_OF_TOKENS
        conversation: dict[str, Any] = {
            "messages": conversation_items([*system, *given], said.output),
            "tools": tools_of(asks.tools),
            "finish_reason": "length" if cut and asked.knows_finish else None,
        }
        return [Conversation.model_validate(conversation)]

    def answered(self, body: Rollout, said: Asked[OnlyMessages], answer: ScoreAnswer) -> Response:
        """The answer; a field that it gives back may hold a number that JSON does not have."""
        try:
            return super().answered(body, said, answer)
        except ValueError:
            raise InvalidRequest("body: NaN and infinities are no JSON, and the answer repeats the request") from None

    def render(self, body: Rollout, asked: Asked[OnlyMessages], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """The request's own fields, and the reward."""
        scored = answer.scores[0]
        verified = {**body.model_dump(exclude_unset=True), "reward": scored.reward}
        verified.pop("reward_components", None)  # of an earlier reward
        if answer.recipe.aggregate in SUMS:
            trained = [term for term in scored.terms if term.weight > 0 and term.transformed is not None]
            verified["reward_components"] = {term.name: term.weight * (term.transformed or 0.0) for term in trained}
        return verified


add_route(router, "/nemo-gym/{objective}/verify", NemoGym(), "NeMo-Gym: the reward of one rollout")
