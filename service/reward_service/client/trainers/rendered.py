"""Rendered text as conversations: for trainers that hand over what the policy's chat template wrote."""

from typing import Any, Literal, get_args

from reward_service.client.trainers.rollouts import Turns, conversation, plain
from reward_service.reparsing import Dialogue, Response, answered, reparse, without_end

Input = Literal["reparse", "raw", "messages"]
"""`reparse` rebuilds the messages, `raw` is tokenized as it is, `messages` takes prompt and response as they are."""


def check_input(mode: Input) -> Input:
    """The mode; ValueError when it is none."""
    if mode not in get_args(Input):
        raise ValueError(f"input: {mode!r}; valid: {', '.join(get_args(Input))}")
    return mode


def of_query(query: str, prompt: str | None, mode: Input, **fields: Any) -> dict[str, Any]:
    """A text that is its prompt and the response; ReparseFailed or ValueError when that is not so."""
    if mode == "raw":
        return {"text": query, **_given(fields)}
    if mode == "reparse":
        dialogue = reparse(query) if prompt is None else answered(query, prompt)
        return {"messages": [dict(one) for one in dialogue.messages], **_finish(dialogue), **_given(fields)}
    if mode == "messages" and prompt is not None and query.startswith(prompt):
        return conversation(prompt, query.removeprefix(prompt), **fields)
    raise ValueError("input: 'messages' needs a query that begins with its prompt; valid here: reparse, raw")


def of_parts(prompt: Turns, response: str, mode: Input, **fields: Any) -> dict[str, Any]:
    """A prompt, rendered or of messages, and what the policy wrote, with or without its end-of-turn."""
    if mode == "messages":
        return conversation(prompt, response, **fields)
    if isinstance(prompt, str):
        return of_query(prompt + response, prompt, mode, **fields)
    if mode == "raw":
        raise ValueError(
            "input: 'raw' needs the text of the prompt, and this one is messages; valid: reparse, messages"
        )
    ended = without_end(response)
    return conversation(plain(prompt), ended.text, **_finish(ended), **fields)


def _finish(read: Dialogue | Response) -> dict[str, str]:
    return {} if read.is_finished else {"finish_reason": "length"}


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
