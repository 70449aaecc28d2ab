"""The baseline endpoints: reference rows per model, policy and prompt."""

from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from reward_service.schemas.base import Answer, Items, Json, Label, Policy, QuantileMethod, Request, Reward, Text
from reward_service.schemas.conversations import Prompt

MOST_PROMPTS = 65_536


class BaselineEntry(Request):
    """References of one prompt: raw rewards (per label for a model with several), or responses to score."""

    prompt: Prompt
    tools: Items[dict[str, Json]] | None = None
    rewards: Items[Reward] | Items[Items[Reward]] | None = Field(None, min_length=1)
    responses: Items[Text] | None = Field(None, min_length=1)
    draw_ids: Items[Text] | None = Field(None, description="identity of each draw; default: idempotency_key:index")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        given = self.rewards if self.rewards is not None else self.responses
        if (self.rewards is None) == (self.responses is None) or given is None:
            raise ValueError("give either `rewards` or `responses`")
        if not self.prompt:
            raise ValueError("prompt is empty; give a text or at least one message")
        if self.draw_ids is not None and len(self.draw_ids) != len(given):
            raise ValueError(f"{len(self.draw_ids)} draw_ids for {len(given)} references; give one for each")
        if self.draw_ids is not None and len(set(self.draw_ids)) != len(self.draw_ids):
            raise ValueError("draw_ids repeat; each draw has an id of its own")
        return self


class PutBaselines(Request):
    """References to store for a policy's prompts."""

    model: str
    policy: Policy
    policy_revision: Text | None = None
    idempotency_key: Text | None = Field(None, min_length=1)
    mode: Literal["replace", "merge"] = "replace"
    entries: list[BaselineEntry] = Field(min_length=1, max_length=MOST_PROMPTS)


class BaselinesWritten(Answer):
    """What a write to the baselines did; `revision` is the policy's after it."""

    model: str
    policy: str
    policy_revision: str | None
    revision: int
    written: int
    unchanged: int


class BaselinesDeleted(Answer):
    """How many prompts lost their references; without a model, those of every model that ever scored them."""

    model: str | None
    policy: str
    revision: int
    deleted: int


class QueryBaselines(Request):
    """Prompts whose baselines to look up."""

    model: str
    policy: Policy
    prompts: list[Prompt] = Field(min_length=1, max_length=MOST_PROMPTS)
    tools: Items[dict[str, Json]] | None = None
    label: Label = 0
    quantile: FiniteFloat = Field(0.85, gt=0, lt=1)
    method: QuantileMethod = "auto"


class Baseline(Answer):
    """The statistic of a prompt's references for one output of a model, in raw units; `count` 0 means none."""

    model: str
    policy: str
    policy_revision: str | None
    frozen: bool
    label: Label
    count: int
    mean: float | None = None
    std: float | None = None
    quantile: float | None = None
    value: float | None = None
    method: str | None = None
    standard_error: float | None = None
    revision: int | None = None


class Baselines(Answer):
    """Baselines in the order of the query's prompts."""

    baselines: list[Baseline]


class FreezeBaselines(Request):
    """Forbid (or allow again) any change of a policy's baselines."""

    policy: Policy
    frozen: bool = True


class FrozenBaselines(Answer):
    """A policy's state after freezing."""

    policy: str
    policy_revision: str | None
    frozen: bool
    revision: int


class BuildSnapshot(Request):
    """Take the global snapshot anew, from the prompts that have at least `min_references` references."""

    model: str
    policy: Policy
    min_references: int = Field(8, ge=1)


class Snapshot(Answer):
    """The global snapshot: a fixed sample of the references of all prompts."""

    model: str
    policy: str
    prompts: int
    count: int
    revision: int
