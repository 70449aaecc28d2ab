"""Each call of the service, described once as data; the two clients only send them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote
from uuid import uuid4

from pydantic import BaseModel

from reward_service.schemas import (
    Baseline,
    Baselines,
    BaselinesDeleted,
    BaselinesWritten,
    FrozenBaselines,
    ModelCard,
    ModelReloaded,
    Models,
    Objectives,
    ScoreAnswer,
    Snapshot,
)

A = TypeVar("A", bound=BaseModel)
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One HTTP call and the type of its answer."""

    answer: type[A]
    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    body: Json | None = None
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    is_long: bool = False
    """Whether one try may take until the deadline."""


def score(
    conversations: Sequence[Json],
    objective: str | None,
    *,
    expect: Json | None = None,
    timeout_s: float | None = None,
    references: bool = False,
    cache: bool = True,
    priority: Literal["rollout", "job"] = "rollout",
) -> Call[ScoreAnswer]:
    """POST /v1/score."""
    body = _given(
        conversations=list(conversations),
        objective=objective,
        expect=expect,
        timeout_s=timeout_s,
        cache=None if cache else False,
        priority=None if priority == "rollout" else priority,
    )
    return Call(ScoreAnswer, "POST", "/v1/score", body, {"references": True} if references else {})


def put_baselines(
    model: str,
    policy: str,
    entries: Sequence[Json],
    *,
    mode: Literal["replace", "merge"] = "replace",
    policy_revision: str | None = None,
    idempotency_key: str | None = None,
) -> Call[BaselinesWritten]:
    """PUT /v1/baselines. It has a key in any case: sent again after a lost answer, it must not count twice."""
    body = _given(
        model=model,
        policy=policy,
        entries=list(entries),
        mode=mode,
        policy_revision=policy_revision,
        idempotency_key=uuid4().hex if idempotency_key is None else idempotency_key,
    )
    return Call(BaselinesWritten, "PUT", "/v1/baselines", body)


def baseline(
    model: str, policy: str, prompt: str, *, label: int | str = 0, quantile: float = 0.85, method: str = "auto"
) -> Call[Baseline]:
    """GET /v1/baselines."""
    params = _given(model=model, policy=policy, prompt=prompt, label=label, quantile=quantile, method=method)
    return Call(Baseline, "GET", "/v1/baselines", params=params)


def query_baselines(
    model: str,
    policy: str,
    prompts: Sequence[str | Sequence[Json]],
    *,
    tools: Sequence[Json] | None = None,
    label: int | str = 0,
    quantile: float = 0.85,
    method: str = "auto",
) -> Call[Baselines]:
    """POST /v1/baselines/query."""
    body = _given(
        model=model, policy=policy, prompts=list(prompts), tools=tools, label=label, quantile=quantile, method=method
    )
    return Call(Baselines, "POST", "/v1/baselines/query", body)


def delete_baselines(policy: str, *, model: str | None = None, prompt: str | None = None) -> Call[BaselinesDeleted]:
    """DELETE /v1/baselines."""
    return Call(BaselinesDeleted, "DELETE", "/v1/baselines", params=_given(policy=policy, model=model, prompt=prompt))


def freeze_baselines(policy: str, *, frozen: bool = True) -> Call[FrozenBaselines]:
    """POST /v1/baselines/freeze."""
    return Call(FrozenBaselines, "POST", "/v1/baselines/freeze", {"policy": policy, "frozen": frozen})


def build_global_baseline(model: str, policy: str, *, min_references: int = 8) -> Call[Snapshot]:
    """POST /v1/baselines/global."""
    body = {"model": model, "policy": policy, "min_references": min_references}
    return Call(Snapshot, "POST", "/v1/baselines/global", body)


def models() -> Call[Models]:
    """GET /v1/models."""
    return Call(Models, "GET", "/v1/models")


def model(name: str) -> Call[ModelCard]:
    """GET /v1/models/{name}."""
    return Call(ModelCard, "GET", f"/v1/models/{quote(name, safe='')}")


def reload_model(name: str) -> Call[ModelReloaded]:
    """POST /v1/models/{name}/reload."""
    return Call(ModelReloaded, "POST", f"/v1/models/{quote(name, safe='')}/reload", is_long=True)


def objectives() -> Call[Objectives]:
    """GET /v1/objectives."""
    return Call(Objectives, "GET", "/v1/objectives")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
