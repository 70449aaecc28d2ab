"""vLLM's pooling form, as verl-style reward functions send it: `/classify` and `/v1/embeddings`."""

import base64
import struct
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from reward_service.api.dialects.asked import Asked, Parameters
from reward_service.api.dialects.extended import OpenAIDialect
from reward_service.api.dialects.numbers import rewards
from reward_service.api.dialects.reading import Body
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.api.dialects.texts import each, of_text
from reward_service.schemas import Conversation, Message, ScoreAnswer
from reward_service.schemas.base import Answer, Items, Json, Text

router = dialect_router()


def _listed(value: object) -> object:
    """A list also of a single text."""
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    Items[Text],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class VllmInput(Body):
    """Texts that are rendered already, or the messages of one conversation."""

    model: Text | None = None
    input: Texts = Field([])
    messages: Items[Message] | None = None
    truncate_prompt_tokens: None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if ("input" in self.model_fields_set) == (self.messages is not None):
            raise ValueError("give either `input` (a text or a list of texts) or `messages`")
        return self

    def conversations(self, asked: Asked[Parameters]) -> list[Conversation]:
        """What to score, in order."""
        if self.messages is not None:
            return [Conversation(messages=self.messages)]
        return each("input", self.input, lambda text: of_text(text, asked))


class VllmBatch(VllmInput):
    """What is sent for rewards, which have no activation; `model` is not used: the path names an objective."""

    use_activation: Literal[False] | None = None
    activation: Literal[False] | None = None


class EmbeddingsBatch(VllmBatch):
    """The same, for `/v1/embeddings`."""

    dimensions: None = None
    encoding_format: Literal["float", "base64"] = "float"


class VllmUsage(Answer):
    """Tokens of all models."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class VllmAnswer(Answer):
    """What every answer has."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: VllmUsage


class Classified(Answer):
    """One conversation: its numbers, and the label of the largest."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class VllmClassified(VllmAnswer):
    """The numbers in the order of the texts."""

    data: list[Classified]


class Embedded(Answer):
    """One conversation: a vector of one number, or that as base64 of a little-endian float32."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class VllmEmbedded(VllmAnswer):
    """The rewards in the order of the texts."""

    data: list[Embedded]


class Classify(OpenAIDialect[VllmBatch, Parameters]):
    """The reward of each text, as the only one of its `probs`."""

    body, parameters = VllmBatch, Parameters
    answer = VllmClassified
    input = "raw"
    item = "input"

    def parse(self, body: VllmBatch, asked: Asked[Parameters]) -> list[Conversation]:
        """Each text, or the messages, as a conversation."""
        return body.conversations(asked)

    def render(self, body: VllmBatch, asked: Asked[Parameters], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """vLLM's answer."""
        return pooled("classify", answer, [classified(answer.objective, [one]) for one in rewards(answer)])


class Embeddings(OpenAIDialect[EmbeddingsBatch, Parameters]):
    """The reward of each text, as the only number of its embedding."""

    body, parameters = EmbeddingsBatch, Parameters
    answer = VllmEmbedded
    input = "raw"
    item = "input"

    def parse(self, body: EmbeddingsBatch, asked: Asked[Parameters]) -> list[Conversation]:
        """Each text, or the messages, as a conversation."""
        return body.conversations(asked)

    def render(self, body: EmbeddingsBatch, asked: Asked[Parameters], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """vLLM's answer."""
        written = _base64 if body.encoding_format == "base64" else _float
        data = [{"object": "embedding", "embedding": written(reward)} for reward in rewards(answer)]
        return pooled("embd", answer, data)


def pooled(kind: str, answer: ScoreAnswer, data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What vLLM answers around its data."""
    tokens = answer.usage.tokens
    return {
        "id": f"{kind}-{uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": answer.objective,
        "data": [{"index": index, **one} for index, one in enumerate(data)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


def classified(label: str, numbers: Sequence[float]) -> dict[str, Any]:
    """One conversation of a `/classify` answer."""
    return {"label": label, "probs": list(numbers), "num_classes": len(numbers)}


def _float(reward: float) -> list[float]:
    return [reward]


def _base64(reward: float) -> str:
    return base64.b64encode(struct.pack("<f", reward)).decode()


add_route(router, "/vllm/{objective}/classify", Classify(), "vLLM's /classify: the reward of each text")
add_route(router, "/vllm/{objective}/v1/embeddings", Embeddings(), "vLLM's /v1/embeddings: the reward of each text")
