"""Group-relative rewards on the wire: what is asked for, and the rules with every number in force."""

from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from reward_service.rewards.groups import RULES, Rules, Scaling, Singleton
from reward_service.schemas.base import Answer, Request

Estimator = Literal["grpo", "rloo", "gdpo"]
READ: dict[Estimator, tuple[str, ...]] = {
    "grpo": ("ddof", "eps", "scale", "singleton"),
    "rloo": ("singleton",),
    "gdpo": ("ddof", "eps", "singleton", "batch_eps", "batch_variance_eps"),
}
"""The rules that each estimator reads."""


class Advantages(Request):
    """Group-relative rewards to give beside the rewards: an estimator, whose rules it follows, and what is changed."""

    estimator: Estimator
    rules: Literal["trl", "verl"] = Field("trl", description="whose rules; each field below changes one of them")
    ddof: Literal[0, 1] | None = Field(None, description="a variance divides by the count less this")
    eps: FiniteFloat | None = Field(None, gt=0, description="added to the standard deviation of a group")
    scale: Scaling | None = Field(None, description="grpo: whose standard deviation divides")
    singleton: Singleton | None = Field(None, description="what a reward alone in its group becomes")
    batch_eps: FiniteFloat | None = Field(None, ge=0, description="gdpo: added to the batch's standard deviation")
    batch_variance_eps: FiniteFloat | None = Field(None, ge=0, description="gdpo: added to the batch's variance")

    @model_validator(mode="after")
    def _are_rules_of_the_estimator(self) -> Self:
        read = READ[self.estimator]
        if unread := [name for name in self._changed() if name not in read]:
            raise ValueError(f"{self.estimator} has no rule {', '.join(unread)}; valid: {', '.join(read)}")
        self.in_force()
        return self

    def in_force(self) -> Rules:
        """The rules with what is changed; ValueError when no rules result."""
        named = RULES[self.rules]
        numbers = {name: getattr(named, name) for name in Rules.__slots__}
        return Rules(**{**numbers, **self._changed()})

    def _changed(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in Rules.__slots__}
        return {name: value for name, value in given.items() if value is not None}


class AdvantageRules(Answer):
    """The rules that the advantages of an answer follow; those that the estimator does not read are not there."""

    estimator: Estimator
    ddof: int | None = None
    eps: float | None = None
    scale: Scaling | None = None
    singleton: Singleton | None = None
    batch_eps: float | None = None
    batch_variance_eps: float | None = None

    @classmethod
    def of(cls, asked: Advantages) -> Self:
        """The rules that are asked for."""
        rules = asked.in_force()
        return cls(estimator=asked.estimator, **{name: getattr(rules, name) for name in READ[asked.estimator]})
