"""The golden conversations: short and long ones, near-duplicates, prompts in common, code, Unicode."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reward_service.engine.engine import Item, Message

FILE = Path(__file__).with_name("golden.json")


@dataclass(frozen=True, slots=True)
class Golden:
    """A conversation by its name."""

    name: str
    messages: tuple[Message, ...]

    @property
    def forms(self) -> list[Item]:
        """The conversation for any model: as it is, without its system message, as one text for want of a template."""
        spoken = tuple(message for message in self.messages if message["role"] != "system")
        plain = "\n\n".join(f"{message['role']}: {message['content']}" for message in spoken)
        shorter = [Item(messages=spoken)] if len(spoken) < len(self.messages) else []
        return [Item(messages=self.messages), *shorter, Item(text=plain)]


@functools.cache
def golden_set() -> Sequence[Golden]:
    """All of them, those of one prompt together."""
    rows = json.loads(FILE.read_text("ascii"))
    return tuple(Golden(row["name"], tuple(row["messages"])) for row in rows)
