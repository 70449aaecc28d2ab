"""What is loaded, what is on offer, and whether it works."""

from typing import Literal

from reward_service.schemas.base import Answer, Request
from reward_service.schemas.score import Recipe


class ModelCard(Answer):
    """A loaded model."""

    name: str
    kind: str
    source: str
    engine: str
    device: str
    dtype: str
    labels: list[str]
    parameters: int | None
    max_tokens: int
    temperature: float
    fingerprint: str
    fingerprint_kind: str


class Models(Answer):
    """What is loaded."""

    models: list[ModelCard]


class ReloadModel(Request):
    """Nothing: what is loaded is what the configuration names, as its files are now."""


class ModelReloaded(Answer):
    """A model that was loaded anew, as it was and as it is; `seconds` is how long that took."""

    before: ModelCard
    after: ModelCard
    seconds: float


class ObjectiveCard(Answer):
    """An objective and the hash of its recipe."""

    name: str
    objective_hash: str
    default: bool
    recipe: Recipe


class Objectives(Answer):
    """The recipes on offer."""

    objectives: list[ObjectiveCard]


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"]


class Readiness(Answer):
    """Whether the service can score; a lost store is named and does not stop raw scoring."""

    status: Literal["ready", "not_ready"]
    models: dict[str, str]
    store: str
