"""What a trainer's texts are as conversations, in each input mode."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from reward_service.api.dialects.asked import Asked
from reward_service.api.dialects.reading import invalid
from reward_service.errors import InvalidRequest, ServiceError
from reward_service.problems import sentences
from reward_service.reparsing import Dialogue, Response, answered, reparse, without_end
from reward_service.schemas import Conversation, Message, Prompt

T = TypeVar("T")


def each(name: str, given: Sequence[T], read: Callable[[T], Conversation]) -> list[Conversation]:
    """Each of a list as a conversation; the error of one names it: `query[3]: ...`."""
    return [_located(f"{name}[{i}]", one, read) for i, one in enumerate(given)]


def _located(where: str, one: T, read: Callable[[T], Conversation]) -> Conversation:
    try:
        return read(one)
    except ValidationError as error:
        raise invalid(sentences(error.errors(), Conversation, where)) from None
    except ServiceError as error:
        raise error.located(where) from None


def of_text(text: str, asked: Asked[Any]) -> Conversation:
    """Prompt and response in one rendered text."""
    if asked.input == "raw":
        return _raw(text)
    if asked.input == "messages":
        raise InvalidRequest(
            "input=messages needs the prompt apart from the response, and this is one text; valid here: reparse, raw"
        )
    return _conversation(reparse(text), asked)


def of_query(query: str, prompt: str, asked: Asked[Any]) -> Conversation:
    """A text that begins with its prompt: rendered, or in the mode `messages` the words of the user."""
    if asked.input == "raw":
        return _raw(query)
    if not prompt:
        raise InvalidRequest("prompt is empty")
    if asked.input == "reparse":
        return _conversation(answered(query, prompt), asked)
    if not query.startswith(prompt):
        raise InvalidRequest("the query does not begin with its prompt (cut at the left, or decoded otherwise?)")
    return Conversation(prompt=prompt, response=query.removeprefix(prompt))


def of_parts(prompt: Prompt, response: str, asked: Asked[Any]) -> Conversation:
    """A prompt (rendered, or messages) and a response."""
    if asked.input == "messages":
        return Conversation(prompt=prompt, response=response)
    if isinstance(prompt, str):
        return of_query(prompt + response, prompt, asked)
    if asked.input == "raw":
        raise InvalidRequest("prompt: input=raw needs the text of the prompt, and this one is messages")
    ended = without_end(response)
    return Conversation(prompt=prompt, response=ended.text, finish_reason=_finish(ended, asked))


def _raw(text: str) -> Conversation:
    if not text:
        raise InvalidRequest("the text is empty")
    return Conversation(text=text)


def _conversation(dialogue: Dialogue, asked: Asked[Any]) -> Conversation:
    messages = [Message(role=one["role"], content=one["content"]) for one in dialogue.messages]
    return Conversation(messages=messages, finish_reason=_finish(dialogue, asked))


def _finish(read: Dialogue | Response, asked: Asked[Any]) -> str | None:
    return "length" if asked.knows_finish and not read.is_finished else None
