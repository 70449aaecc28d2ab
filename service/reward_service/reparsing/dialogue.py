"""What reparsing gives: messages, and whether the last of them was ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Message = dict[str, str]
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages that end in an assistant turn; `is_finished` is False where that turn has no end-of-turn.

    `template` names the family whose markers the text has; None for a plain prompt.
    """

    messages: tuple[Message, ...]
    is_finished: bool
    template: str | None


@dataclass(frozen=True, slots=True)
class Response:
    """What the policy wrote, without what ends it; `is_finished` is False where nothing ended it."""

    text: str
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as the text has it; the last one still with what ends it."""

    role: str
    content: str


class Template(Protocol):
    """How one family of chat templates writes turns."""

    @property
    def name(self) -> str:
        """The family."""

    @property
    def ends(self) -> Sequence[str]:
        """What ends a turn, and what ends the text."""

    def begins(self, text: str) -> bool:
        """Whether the text starts with a turn, or with the BOS and a turn."""

    def is_in(self, text: str) -> bool:
        """Whether a marker of the family is anywhere in the text."""

    def turns(self, text: str, response: str = "") -> list[Turn]:
        """The turns of a text that begins with one; ReparseFailed when they do not fit together.

        `response` goes on with the last turn, and no marker in it counts.
        """

    def tidied(self, messages: Sequence[Message]) -> list[Message]:
        """The messages without what the template itself wrote into them."""


def shown(text: str) -> str:
    """The start of a text, short enough to quote."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
