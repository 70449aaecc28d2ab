"""Mistral's templates, v1 to v7: [INST], [/INST], an optional system prompt, and blanks that differ."""

import re
from collections.abc import Sequence
from itertools import zip_longest

from reward_service.errors import ReparseFailed
from reward_service.reparsing.dialogue import Message, Turn
from reward_service.reparsing.marks import START

OPENING = re.compile(START + r"(?:\[SYSTEM_PROMPT\](.*?)\[/SYSTEM_PROMPT\]\s*+)?\[INST\]", re.DOTALL)
BETWEEN = re.compile(r"</s>\s*+(?:<s>\s*+)?\[INST\]")
CLOSING = "[/INST]"
TOOLS = re.compile(r"</s>\s*\[TOOL_(?:CALLS|RESULTS)\]")
LLAMA_2_SYSTEM = " <<SYS>>\n"


class MistralTemplate:
    """`[INST]user[/INST]assistant</s>`; the versions differ in blanks inside the markers, which all turns share."""

    name = "mistral"
    ends = ("</s>",)

    def begins(self, text: str) -> bool:
        """Whether the text starts with a system prompt or a user turn."""
        return OPENING.match(text) is not None

    def is_in(self, text: str) -> bool:
        """Whether a user turn begins or ends anywhere."""
        return "[INST]" in text or CLOSING in text

    def turns(self, text: str, response: str = "") -> list[Turn]:
        """The turns, without the blanks that the template writes around their contents."""
        if TOOLS.search(text):
            raise ReparseFailed("the text has tool calls or results in Mistral's form, which are not understood")
        opening = OPENING.match(text)
        begun = text[opening.end() :] if opening else text
        if begun.startswith(LLAMA_2_SYSTEM):
            raise ReparseFailed("the text has a system prompt in Llama-2's form (<<SYS>>), which is not understood")
        exchanges = [one.split(CLOSING, 1) for one in BETWEEN.split(begun)]
        exchanges[-1][-1] += response
        if any(len(exchange) == 1 for exchange in exchanges[:-1]):
            raise ReparseFailed(f"a user turn in Mistral's form is not closed by {CLOSING} before the next one")
        return _turns(opening[1] if opening else None, exchanges)

    def tidied(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as they are."""
        return list(messages)


def _turns(system: str | None, exchanges: Sequence[Sequence[str]]) -> list[Turn]:
    """Turns of exchanges: a user's content and, unless it is the last one and still open, the answer to it.

    The last answer is what a policy wrote: it says nothing of the template's blanks.
    """
    users = [exchange[0] for exchange in exchanges]
    answers = [exchange[1] for exchange in exchanges if len(exchange) > 1]
    padded = all(user.startswith(" ") for user in users)
    closed = padded and all(user.endswith(" ") for user in users[: len(answers)])
    spaced = padded and all(answer.startswith(" ") for answer in answers[:-1] if answer)
    contents = [user[padded : len(user) - closed] for user in users]
    turns = [] if system is None else [Turn("system", system[padded and system.startswith(" ") :])]
    for content, answer in zip_longest(contents, answers):
        turns.append(Turn("user", content))
        if answer is not None:
            turns.append(Turn("assistant", answer.removeprefix(" ") if spaced else answer))
    return turns
