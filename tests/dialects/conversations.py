"""Conversations as a policy's ChatML template writes them, and as `/v1/score` takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Turn = dict[str, str]
QUESTION: tuple[Turn, ...] = ({"role": "user", "content": "How tall is a giraffe?"},)
LONG: tuple[Turn, ...] = (
    {"role": "system", "content": "You answer in one sentence.\nNo lists."},
    {"role": "user", "content": "How tall is a giraffe? 🦒"},
    {"role": "assistant", "content": "About five metres."},
    {"role": "user", "content": "  And an okapi?\n"},
)


@dataclass(frozen=True)
class Sample:
    """A response to a prompt; `ended` is False where the length limit cut it."""

    response: str
    prompt: Sequence[Turn] = QUESTION
    ended: bool = True

    @property
    def rendered_prompt(self) -> str:
        turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in self.prompt)
        return f"{turns}<|im_start|>assistant\n"

    @property
    def rendered_response(self) -> str:
        return self.response + ("<|im_end|>" if self.ended else "")

    @property
    def rendered(self) -> str:
        return self.rendered_prompt + self.rendered_response

    @property
    def conversation(self) -> dict[str, Any]:
        """The same for `/v1/score`."""
        messages = [*self.prompt, {"role": "assistant", "content": self.response}]
        return {"messages": messages, "finish_reason": None if self.ended else "length"}


ORDINARY = (
    Sample("Giraffes reach about five and a half metres."),
    Sample("No idea."),
    Sample("An okapi is about one and a half metres tall. 🦓\n\n```python\nprint('é')\n```\n", LONG),
)
