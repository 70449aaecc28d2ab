"""DeepSeek's templates: <｜User｜> and <｜Assistant｜> (V2.5 to V4, R1), and plain "User: " before that (LLM, V2)."""

import re
from collections.abc import Sequence

from reward_service.errors import ReparseFailed
from reward_service.reparsing.dialogue import Message, Turn

BEGINNING, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
PLAIN_USER, PLAIN_ASSISTANT = "User: ", "\n\nAssistant:"
NOT_THINKING = "</think>"
TOOLS = re.compile(rf"{END}\s*<｜tool▁")


class DeepSeekTemplate:
    """A system prompt is the text between BOS and the first user turn; only the assistant's turn is ended."""

    name = "deepseek"
    ends = (END,)

    def begins(self, text: str) -> bool:
        """Whether the text starts with a user turn, or with the BOS, behind which there may be a system prompt."""
        begun = text.lstrip()
        return begun.startswith((BEGINNING, USER)) or (begun.startswith(PLAIN_USER) and END in text)

    def is_in(self, text: str) -> bool:
        """Whether there is a marker anywhere."""
        return any(mark in text for mark in (USER, ASSISTANT, END))

    def turns(self, text: str, response: str = "") -> list[Turn]:
        """The turns of a text that begins with a system prompt or a user turn."""
        if TOOLS.search(text):
            raise ReparseFailed("the text has tool calls or results in DeepSeek's form, which are not understood")
        begun = re.sub(rf"\A\s*(?:{BEGINNING})+", "", text)
        return _marked(begun, response) if USER in begun else _plain(begun, response)

    def tidied(self, messages: Sequence[Message]) -> list[Message]:
        """The messages without the `</think>` that V3.1 and later write before a response without a thought."""
        return [
            {**message, "content": message["content"].removeprefix(NOT_THINKING)}
            if message["role"] == "assistant"
            else message
            for message in messages
        ]


def _marked(text: str, response: str) -> list[Turn]:
    system, _, rest = text.partition(USER)
    if USER in rest and END not in rest:
        raise ReparseFailed(f"there are several {USER} and no {END}: were special tokens skipped when it was decoded?")
    exchanges = [one.split(ASSISTANT, 1) for one in re.split(rf"{END}\s*{USER}", rest)]
    exchanges[-1][-1] += response
    return _turns(system, exchanges)


def _plain(text: str, response: str) -> list[Turn]:
    """Only the ends are special tokens here: a text with more "Assistant:" than turns can be read in two ways."""
    system, rest = "", text.removeprefix(PLAIN_USER)
    if not text.startswith(PLAIN_USER):
        system, found, rest = text.partition(f"\n\n{PLAIN_USER}")
        if not found:
            raise ReparseFailed(f"behind {BEGINNING} there is no user turn ({USER} or {PLAIN_USER!r})")
    exchanges = [one.split(PLAIN_ASSISTANT) for one in re.split(rf"{END}\s*{PLAIN_USER}", rest)]
    if any(len(exchange) > 2 for exchange in exchanges):
        raise ReparseFailed(f"a turn holds {PLAIN_ASSISTANT!r} more than once: where the response begins is not clear")
    exchanges[-1][-1] += response
    turns = _turns(system, exchanges)
    return [Turn(turn.role, turn.content.removeprefix(" ")) if turn.role == "assistant" else turn for turn in turns]


def _turns(system: str, exchanges: Sequence[Sequence[str]]) -> list[Turn]:
    if any(len(exchange) == 1 for exchange in exchanges[:-1]):
        raise ReparseFailed(f"a user turn in DeepSeek's form is followed by {END} and not by the assistant")
    roles = ("user", "assistant")
    turns = [Turn(role, content) for exchange in exchanges for role, content in zip(roles, exchange, strict=False)]
    return [Turn("system", system), *turns] if system else turns
