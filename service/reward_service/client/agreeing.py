"""What makes answers of one kind: the recipe, the models and the frozen baselines behind their numbers."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reward_service.client.errors import AnswersDisagree
from reward_service.schemas import ScoreAnswer


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer names: numbers of different identities must not be mixed.

    Only frozen baselines count: the revision of a policy that is still written to changes with every write.
    """

    objective: str
    objective_hash: str
    models: Mapping[str, str]
    baselines: Mapping[str, int]

    @classmethod
    def of(cls, answer: ScoreAnswer) -> "Identity":
        """The identity of an answer."""
        return cls(
            answer.objective,
            answer.objective_hash,
            {name: model.fingerprint for name, model in answer.models.items()},
            {policy: used.revision for policy, used in answer.baselines.items() if used.frozen},
        )

    def check(self, other: "Identity", where: str) -> None:
        """Raise AnswersDisagree, with what differs, if the other is of another kind; `where` names both answers."""
        here, there = self._named(), other._named()
        for name in here.keys() & there.keys():
            if here[name] != there[name]:
                raise AnswersDisagree(f"{name}: {here[name]!r} and {there[name]!r} in {where}: not one kind of number")

    def joined(self, other: "Identity") -> "Identity":
        """This, with what only the other names."""
        return replace(self, models={**other.models, **self.models}, baselines={**other.baselines, **self.baselines})

    def _named(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "objective_hash": self.objective_hash,
            **{f"models.{name}.fingerprint": fingerprint for name, fingerprint in self.models.items()},
            **{f"baselines.{policy}.revision": revision for policy, revision in self.baselines.items()},
        }


@dataclass(slots=True)
class Pin:
    """What the answers for each objective named first; may be used from several threads."""

    held: dict[str | None, Identity] = field(default_factory=dict)
    given: Mapping[str, Any] | None = None
    """What the caller expects from the first answer on."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def expectation(self, objective: str | None) -> dict[str, Any] | None:
        """What to expect of the next answer; None before the first, when the caller expects nothing."""
        held, given = self.held.get(objective), self.given or {}
        if held is None:
            return dict(given) or None
        return {
            "objective_hash": held.objective_hash,
            "models": {**held.models, **(given.get("models") or {})},
            "baselines": {**held.baselines, **(given.get("baselines") or {})},
        }

    def hold(self, objective: str | None, answer: ScoreAnswer) -> None:
        """Keep what the answer is the first to name; AnswersDisagree when it names other than those before it.

        The first answer may leave out baselines, as one does that came while the store was away.
        """
        named = Identity.of(answer)
        with self._lock:
            held = self.held.get(objective, named)
            held.check(named, "two answers of a pinned run")
            self.held[objective] = held.joined(named)
