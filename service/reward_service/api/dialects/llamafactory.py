"""LLaMA-Factory PPO: `reward_model_type: api`, `reward_model: URL`, one batch of rendered texts per request."""

from reward_service.api.dialects.asked import Asked, Parameters
from reward_service.api.dialects.dialect import Dialect
from reward_service.api.dialects.numbers import rewards
from reward_service.api.dialects.reading import Body
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.api.dialects.texts import each, of_text
from reward_service.schemas import Conversation, ScoreAnswer
from reward_service.schemas.base import Answer, Items, Json, Text

router = dialect_router()


class LlamaFactoryBatch(Body):
    """Prompts and responses in one, as the policy's template wrote them; `model` is always the same word."""

    model: Json = None
    messages: Items[Text]


class LlamaFactoryScores(Answer):
    """The rewards in the order of the texts. An error has no `scores`, which stops the trainer."""

    scores: list[float]


class LlamaFactory(Dialect[LlamaFactoryBatch, Parameters]):
    """The rewards of a batch. The trainer never asks again, so the service waits for room in its stead."""

    body, parameters = LlamaFactoryBatch, Parameters
    answer = LlamaFactoryScores
    input = "reparse"
    item = "messages"

    def parse(self, body: LlamaFactoryBatch, asked: Asked[Parameters]) -> list[Conversation]:
        """Each text as a conversation."""
        return each("messages", body.messages, lambda text: of_text(text, asked))

    def render(self, body: LlamaFactoryBatch, asked: Asked[Parameters], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """The rewards."""
        return {"scores": rewards(answer)}


add_route(router, "/llamafactory/{objective}", LlamaFactory(), "LLaMA-Factory PPO: the rewards of a batch")
