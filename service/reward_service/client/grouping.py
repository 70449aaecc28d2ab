"""Advantages of a call: whole groups going in, and what all of its parts were answered coming out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from reward_service.advantages import with_advantages
from reward_service.client.calls import Json
from reward_service.problems import sentences
from reward_service.rewards.groups import group_problems
from reward_service.schemas import Advantages, ScoreAnswer

OPTION = "advantages"


@dataclass(frozen=True, slots=True)
class Grouping:
    """The group of each conversation of a call, and what to compute from it; without `asked`, nothing."""

    groups: Sequence[str]
    asked: Advantages | None

    @classmethod
    def of(cls, conversations: Sequence[Json], asked: Mapping[str, Any] | None) -> "Grouping":
        """What the call asks for; ValueError for rules that are none, and for groups that are not whole."""
        if asked is None:
            return cls([], None)
        advantages = _validated(asked)
        groups, sizes = ([_get(one, name) for one in conversations] for name in ("group", "group_size"))
        if problems := _ungrouped(groups, sizes) or group_problems(groups, sizes):
            more = f" (one of {len(problems)} problems)" if len(problems) > 1 else ""
            raise ValueError(f"{OPTION}: {problems[0]}{more}")
        return cls(groups, advantages)

    def advantaged(self, answer: ScoreAnswer) -> ScoreAnswer:
        """The answer with the advantages; a conversation without a reward has none, whatever stands in for it."""
        return answer if self.asked is None else with_advantages(answer, self.groups, self.asked)


def parted(conversation: Json) -> Json:
    """A conversation that goes without the others of its group."""
    if not isinstance(conversation, Mapping) or "group_size" not in conversation:
        return conversation
    return {name: value for name, value in conversation.items() if name != "group_size"}


def _validated(asked: Mapping[str, Any]) -> Advantages:
    try:
        return Advantages.model_validate(asked)
    except ValidationError as error:
        raise ValueError("; ".join(sentences(error.errors(), Advantages, OPTION))) from error


def _ungrouped(groups: Sequence[Any], sizes: Sequence[Any]) -> list[str]:
    return [
        f"conversations[{i}]: group {group!r:.80}, group_size {size!r:.80}; valid: a text and a whole number from 1 on"
        for i, (group, size) in enumerate(zip(groups, sizes, strict=True))
        if not isinstance(group, str) or type(size) is not int or size < 1
    ]


def _get(conversation: Json, name: str) -> Any:
    return conversation.get(name) if isinstance(conversation, Mapping) else None
