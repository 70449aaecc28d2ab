"""POST /v1/score: conversations in, rewards with their provenance out."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, WrapValidator

from reward_service.schemas.advantages import AdvantageRules, Advantages
from reward_service.schemas.base import Answer, ErrorBody, Json, Label, Request
from reward_service.schemas.conversations import Conversation, validated_alone


class Expectation(Request):
    """What the server must still be; anything else is answered with 409."""

    objective_hash: str | None = None
    models: dict[str, str] | None = Field(None, description="fingerprint by model")
    baselines: dict[str, int] | None = Field(None, description="revision by policy")


class ScoreRequest(Request):
    """Conversations to score with an objective."""

    objective: str | None = None
    conversations: list[Annotated[Conversation, WrapValidator(validated_alone)]]
    expect: Expectation | None = None
    advantages: Advantages | None = Field(None, description="group-relative rewards, of whole groups")
    timeout_s: FiniteFloat | None = Field(None, gt=0)
    cache: bool = Field(True, description="false: compute every score anew, and keep none")
    priority: Literal["rollout", "job"] = Field("rollout", description="job: whatever is not a job goes first")


class ReferenceUsed(Answer):
    """The references behind a term's number, in raw units of the model."""

    policy: str | None
    revision: int | None
    count: int
    mean: float
    std: float | None
    quantile: float | None
    method: str | None
    standard_error: float | None
    share_below: float | None = None
    rewards: list[float] | None = None


class TermScore(Answer):
    """One term of one conversation; `raw`, `std`, `baseline` and `reference` are in raw units of the model."""

    name: str
    model: str
    label: Label
    raw: float | None
    raw_source: str | None = Field(description="model, or on_unfinished: the number that the configuration gives")
    std: float | None
    temperature: float
    baseline: float | None
    baseline_source: str | None = Field(description="prompt, response, request, global or constant")
    reference: ReferenceUsed | None
    transformed: float | None
    weight: float
    error: ErrorBody | None = None


class ConversationScore(Answer):
    """The reward of one conversation and how it came about; `reward` is null exactly when `error` is not."""

    id: str | None
    reward: float | None
    terms: list[TermScore]
    error: ErrorBody | None
    advantage: float | None = Field(None, description="where advantages are asked for; null when the reward is")


class TermRecipe(Answer):
    """What an objective does with one model's raw score."""

    name: str
    model: str
    label: Label
    transform: str
    negate: bool
    clip: tuple[float, float] | None
    weight: float
    temperature: float
    baseline: Json = None


class Recipe(Answer):
    """What an objective computes; with the numbers of an answer everything in it can be recomputed."""

    aggregate: str
    k: int | None
    terms: list[TermRecipe]


class ModelUsed(Answer):
    """The model behind a raw score."""

    fingerprint: str
    fingerprint_kind: str
    engine: str
    dtype: str


class PolicyUsed(Answer):
    """The state of a policy's baselines; `revision` grows with each change to them."""

    policy_revision: str | None
    frozen: bool
    revision: int


class Usage(Answer):
    """Tokens over all conversations and models; `tokens_computed` went through a device for this request."""

    tokens: int
    tokens_computed: int
    cached_scores: int


class Timings(Answer):
    """Milliseconds: longest wait in the queue, longest time on the device, and the whole request."""

    queue: float
    compute: float
    total: float


class ScoreAnswer(Answer):
    """Scores in the order of the request's conversations."""

    objective: str
    objective_hash: str
    recipe: Recipe
    scores: list[ConversationScore]
    models: dict[str, ModelUsed]
    baselines: dict[str, PolicyUsed]
    usage: Usage
    timings_ms: Timings
    advantage_rules: AdvantageRules | None = Field(None, description="where advantages are asked for")

    @property
    def rewards(self) -> list[float | None]:
        """The rewards in request order; None where there is an error."""
        return [score.reward for score in self.scores]

    @property
    def advantages(self) -> list[float | None]:
        """The advantages in request order; None where there is an error, or none were asked for."""
        return [score.advantage for score in self.scores]
