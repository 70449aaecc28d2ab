"""Templates that mark each turn with a role at its start and a token at its end: ChatML, Llama-3, Gemma, Zephyr."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from reward_service.reparsing.dialogue import Message, Turn
from reward_service.reparsing.marks import START, any_of

Tidy = Callable[[Message], Message | None]
QWEN_DEFAULTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
)
NO_THOUGHT = "<think>\n\n</think>\n\n"
LLAMA_PREAMBLE = re.compile(r"(?:Environment: ipython\n)?Cutting Knowledge Date: [^\n]*\nToday Date: [^\n]*\n\n")


def as_it_is(message: Message) -> Message:
    """For templates that write nothing of their own into messages."""
    return message


def without_qwen_defaults(message: Message) -> Message | None:
    """Qwen writes a system prompt where there is none, and an empty thought before a response without one."""
    if message["role"] == "system" and message["content"] in QWEN_DEFAULTS:
        return None
    if message["role"] == "assistant":
        return {**message, "content": message["content"].removeprefix(NO_THOUGHT)}
    return message


def without_llama_preamble(message: Message) -> Message | None:
    """Llama-3.1 and later write two dates before the system prompt, also where there is none."""
    found = LLAMA_PREAMBLE.match(message["content"]) if message["role"] == "system" else None
    if found is None:
        return message
    content = message["content"][found.end() :]
    return {**message, "content": content} if content else None


@dataclass(frozen=True)
class MarkedTemplate:
    """A turn is `opener` (a pattern whose group is the role), content, one of `turn_ends`; the last may lack its end.

    A turn begins where an end stands directly before an opener, and nowhere else: either of them alone is content.
    So is an opener of the assistant in an assistant turn, since no template writes two of them in a row.
    """

    name: str
    opener: str
    turn_ends: Sequence[str]
    text_ends: Sequence[str]
    roles: Mapping[str, str] = field(default_factory=dict)
    tidy: Tidy = as_it_is

    @property
    def ends(self) -> Sequence[str]:
        """What ends a turn, and what ends the text."""
        return (*self.turn_ends, *self.text_ends)

    def begins(self, text: str) -> bool:
        """Whether the text starts with an opener."""
        return re.match(START + self.opener, text) is not None

    def is_in(self, text: str) -> bool:
        """Whether there is an opener anywhere."""
        return re.search(self.opener, text) is not None

    def turns(self, text: str, response: str = "") -> list[Turn]:
        """The turns of a text that begins with an opener; `response` goes on with the last one, whatever it holds."""
        openers: list[re.Match[str]] = []
        for found in re.finditer(rf"(?:\A{START}|{any_of(self.turn_ends)} ?\n?){self.opener}", text):
            if not (openers and self._role(openers[-1]) == self._role(found) == "assistant"):
                openers.append(found)
        contents = [*(text[one.end() : after.start()] for one, after in pairwise(openers)), text[openers[-1].end() :]]
        contents[-1] += response
        return [Turn(self._role(one), content) for one, content in zip(openers, contents, strict=True)]

    def _role(self, opener: re.Match[str]) -> str:
        return self.roles.get(opener[1], opener[1])

    def tidied(self, messages: Sequence[Message]) -> list[Message]:
        """The messages without what the template itself wrote into them."""
        return [tidied for tidied in map(self.tidy, messages) if tidied is not None]
