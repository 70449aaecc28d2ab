"""What to score: a conversation in one of its three forms."""

from collections.abc import Callable
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from reward_service.errors import printable
from reward_service.schemas.base import Items, Json, Request, Reward, Text


class Message(Request):
    """One turn, in the OpenAI form; handed to the model's own chat template."""

    role: Text = Field(min_length=1)
    content: Text | None = None
    name: Text | None = None
    tool_calls: Items[dict[str, Json]] | None = None
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs `content` (a string) or `tool_calls`")
        return self


Prompt = Text | Items[Message]
MOST_REFERENCES = 4096
MOST_ERRORS = 100


class References(Request):
    """References of one term, in the request itself: raw rewards of the term's output, or responses to score."""

    rewards: Items[Reward] | None = Field(None, min_length=1, max_length=MOST_REFERENCES)
    responses: Items[Text] | None = Field(None, min_length=1, max_length=MOST_REFERENCES)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.rewards is None) == (self.responses is None):
            raise ValueError("give either `rewards` or `responses`")
        return self


class Conversation(Request):
    """What to score: `messages` that end in the assistant turn, or `prompt` with `response`, or rendered `text`."""

    id: Text | None = None
    messages: Items[Message] | None = Field(None, min_length=1)
    prompt: Prompt | None = None
    response: Text | None = None
    text: Text | None = Field(None, min_length=1)
    tools: Items[dict[str, Json]] | None = None
    group: str | None = None
    group_size: int | None = Field(None, ge=1, description="conversations of the group; all are in the request")
    ground_truth: Json = None
    metadata: dict[str, Json] | None = None
    finish_reason: str | None = None
    references: dict[str, References] | None = None

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        given = [name for name in ("messages", "prompt", "response", "text") if getattr(self, name) is not None]
        if given not in (["messages"], ["prompt", "response"], ["text"]):
            raise ValueError(
                "a conversation is `messages`, or `prompt` with `response`, or `text`; "
                f"given: {' and '.join(given) or 'none'}"
            )
        if self.messages and self.messages[-1].role != "assistant":
            raise ValueError(
                f"messages must end in the assistant turn to score; the last role is {self.messages[-1].role!r}"
            )
        if self.prompt is not None and not self.prompt:
            raise ValueError("prompt is empty; give a text or at least one message")
        if self.text is not None and self.tools:
            raise ValueError("`tools` go through the chat template and `text` is rendered already; give one of them")
        return self


class InvalidConversation(BaseModel):
    """A conversation that is not valid, and pydantic's errors of it; it fails alone."""

    id: str | None
    group: str | None
    group_size: int | None
    errors: list[Any]


def validated_alone(value: object, validate: Callable[[object], Conversation]) -> Conversation | InvalidConversation:
    """The conversation, or why it is none: one bad conversation does not fail its neighbours."""
    try:
        return validate(value)
    except ValidationError as error:
        given = value if isinstance(value, dict) else {}
        identity, group, size = given.get("id"), given.get("group"), given.get("group_size")
        return InvalidConversation(
            id=printable(identity) if isinstance(identity, str) else None,
            group=group if isinstance(group, str) else None,
            group_size=size if type(size) is int else None,
            errors=error.errors() if error.error_count() <= MOST_ERRORS else [_too_many(error.error_count())],
        )


def _too_many(errors: int) -> dict[str, Any]:
    """One error in place of more than anybody reads."""
    return {"type": "value_error", "loc": (), "msg": f"{errors} fields are not valid", "input": None}
