"""From the wire to items: what a conversation is to a model and to the baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_service.baselines.keys import Tools, prompt_key
from reward_service.engine.engine import Item, Message
from reward_service.errors import InvalidRequest
from reward_service.objectives import Objective
from reward_service.problems import nearest, sentences
from reward_service.schemas import Conversation, InvalidConversation, Prompt, References
from reward_service.schemas import Message as WireMessage


@dataclass(frozen=True, slots=True)
class Prepared:
    """A conversation ready to score; `prompt` and `prompt_key` are None for rendered text."""

    id: str | None
    item: Item
    prompt: tuple[Message, ...] | None
    prompt_key: str | None
    references: dict[str, References]


@dataclass(frozen=True, slots=True)
class Refused:
    """A conversation that is not valid: an error of its own, and nobody else's."""

    id: str | None
    error: InvalidRequest


class PromptKeys:
    """The keys of one request's prompts, each hashed once: the responses to a prompt bring it again and again."""

    def __init__(self) -> None:
        self._known: dict[object, str] = {}

    def key(self, prompt: Sequence[Message], tools: Tools | None) -> str:
        """The `prompt_key`; only prompts that are nothing but texts are remembered."""
        if tools or any("tool_calls" in message for message in prompt):
            return prompt_key(prompt, tools)
        texts = tuple(tuple(message.items()) for message in prompt)
        if texts not in self._known:
            self._known[texts] = prompt_key(prompt)
        return self._known[texts]


def prepared(
    conversations: Sequence[Conversation | InvalidConversation], objective: Objective
) -> list[Prepared | Refused]:
    """Each conversation as an item, or why it cannot be one."""
    keys = PromptKeys()
    return [_prepare(conversation, i, objective, keys) for i, conversation in enumerate(conversations)]


def _prepare(
    conversation: Conversation | InvalidConversation, index: int, objective: Objective, keys: PromptKeys
) -> Prepared | Refused:
    if isinstance(conversation, InvalidConversation):
        problems = sentences(conversation.errors, Conversation, f"conversations[{index}]")
        return Refused(conversation.id, InvalidRequest("; ".join(problems), problems))
    if problem := _references_problem(conversation, objective):
        return Refused(conversation.id, InvalidRequest(f"conversations[{index}].references.{problem}"))
    try:
        return _prepared(conversation, keys)
    except (InvalidRequest, RecursionError) as error:
        return Refused(conversation.id, InvalidRequest(f"conversations[{index}]: {_reason(error)}"))


def _prepared(conversation: Conversation, keys: PromptKeys) -> Prepared:
    prompt = prompt_of(conversation)
    return Prepared(
        id=conversation.id,
        item=_item(conversation, prompt),
        prompt=prompt,
        prompt_key=None if prompt is None else keys.key(prompt, conversation.tools),
        references=conversation.references or {},
    )


def _reason(error: Exception) -> str:
    return "tools or tool_calls are nested too deeply" if isinstance(error, RecursionError) else str(error)


def plain_messages(prompt: Prompt) -> tuple[Message, ...]:
    """A prompt as messages; a text is one user message."""
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    return tuple(_plain(message) for message in prompt)


def prompt_of(conversation: Conversation) -> tuple[Message, ...] | None:
    """The messages before the response; None for rendered text."""
    if conversation.messages is not None:
        return plain_messages(conversation.messages[:-1])
    return None if conversation.prompt is None else plain_messages(conversation.prompt)


def with_response(prompt: Sequence[Message], response: str, *, tools: Sequence[Mapping[str, Any]] | None) -> Item:
    """A response to a prompt, as an item."""
    return Item(messages=(*prompt, {"role": "assistant", "content": response}), tools=tools)


def _item(conversation: Conversation, prompt: tuple[Message, ...] | None) -> Item:
    if conversation.messages is not None and prompt is not None:
        messages: tuple[Message, ...] | None = (*prompt, _plain(conversation.messages[-1]))
    else:
        messages = None if prompt is None else (*prompt, {"role": "assistant", "content": conversation.response})
    return Item(
        messages=messages,
        text=conversation.text,
        tools=conversation.tools,
        metadata=conversation.metadata,
        group=conversation.group,
        ground_truth=conversation.ground_truth,
        finish_reason=conversation.finish_reason,
    )


def _plain(message: WireMessage) -> Message:
    return {name: value for name, value in vars(message).items() if value is not None}


def _references_problem(conversation: Conversation, objective: Objective) -> str | None:
    """Why the references that a conversation brings cannot be used, if so."""
    if not conversation.references:
        return None
    takers = [term.name for term in objective.terms if term.takes_references]
    for name, given in conversation.references.items():
        if name not in takers:
            return f"{name}: no such term of {objective.name!r} takes references{nearest(name, takers)}"
        if given.responses is not None and conversation.text is not None:
            return f"{name}.responses: a conversation given as `text` has no prompt to score them with; give `rewards`"
    return None
