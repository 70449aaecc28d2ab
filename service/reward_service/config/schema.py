"""The tables and keys of a configuration file, typed; the docstring of each field is its documentation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, FiniteFloat, Tag
from pydantic import field_validator as validates

from reward_service.config.access import ApiKeyConfig, LimitsConfig, ServerConfig
from reward_service.config.observing import TelemetryConfig
from reward_service.config.section import Name, Section
from reward_service.config.storing import StoreConfig


class ScoreCacheConfig(Section):
    """Raw scores that are kept, by fingerprint and token ids; a request may opt out with `cache = false`."""

    enabled: bool = True
    """Whether scores are kept at all."""
    max_entries: int = Field(200_000, ge=1)
    """Scores held in memory; the least recently used go first."""
    ttl_s: FiniteFloat = Field(86_400.0, gt=0, strict=False)
    """How long a score is kept in the store, in seconds."""


class ClassifierConfig(Section):
    """A sequence-classification reward model: any `AutoModelForSequenceClassification` folder or hub id."""

    name: Name
    """Name of the model in requests, answers and metrics."""
    kind: Literal["classifier"] = "classifier"
    """The kind of model."""
    source: str = Field(min_length=1)
    """Folder or hub id."""
    revision: str = "main"
    """Hub revision; not used for a folder."""
    engine: Literal["torch", "vllm", "http"] = "torch"
    """What computes the scores: `torch` and `vllm` in this process, `http` a server that hosts the model."""
    protocol: Literal["vllm", "sglang", "tei", "reward-service"] | None = None
    """For engine `http`: what kind of server the URLs are."""
    urls: list[str] = Field([])
    """For engine `http`: servers that host this model, `http://host:port`; each batch goes to the least loaded."""
    served_name: str | None = None
    """For engine `http`: the model's name at the server; asked of the server unless given."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """For engine `http`: environment variable that holds the server's API key."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number type of the body; the head always runs in float32."""
    max_tokens: int = Field(4096, ge=1)
    """Most tokens of a rendered conversation."""
    max_batch_tokens: int | None = Field(None, ge=1)
    """Most tokens that the device computes at once, shared prefixes counted once; 16,384 on a GPU and 4,096 on a CPU
    unless given."""
    packing: Literal["shared", "packed", "off"] = "shared"
    """`shared`: items end to end, equal beginnings computed once; `packed`: each item whole; `off`: padded batches."""
    compile: bool = True
    """Compile the model's layers where that pays; without a C++ compiler they run as they are."""
    parity: Literal["auto", "reference", "self"] = "auto"
    """Check before serving: `reference` compares with Transformers in float32, one conversation at a time (loads the
    weights twice); `self` only with the model itself; `auto` takes `reference` up to 2 billion parameters."""
    on_too_long: Literal["error", "truncate_left"] = "error"
    """What happens to a conversation with more than `max_tokens`: an error, or its oldest tokens are dropped."""
    reasoning: Literal["keep", "strip"] = "keep"
    """Whether the `<think>` part of the response is scored or taken out first."""
    special_tokens_in_content: Literal["literal", "error", "parse"] = "literal"
    """Special tokens of the model that a message spells: `literal` reads them as plain text, `error` refuses the
    conversation, `parse` makes special tokens of them."""
    on_unfinished: Literal["score", "error"] | FiniteFloat = "score"
    """A response with finish_reason `length`: score it without an end-of-turn, refuse it, or give it this raw score."""
    temperature: FiniteFloat = Field(1.0, gt=0, strict=False)
    """Divides raw, baseline and references; fitted on held-out preferences."""
    trust_remote_code: bool = False
    """Run Python code that the model folder brings. Only for sources you trust as you trust your own code."""

    @validates("source")
    @classmethod
    def _is_there(cls, source: str) -> str:
        if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
            raise ValueError(f"no folder {source!r}; valid: an existing folder, or a hub id such as org/name")
        return source


ModelConfig = ClassifierConfig


class StoredBaseline(Section):
    """A statistic of the stored references of the prompt."""

    policy: Name
    """Policy whose responses the references are."""
    quantile: FiniteFloat = Field(0.85, gt=0, lt=1)
    """Which quantile of the references is the baseline."""
    method: Literal["auto", "empirical", "normal", "mean"] = "auto"
    """How the statistic is taken: `auto` is empirical from 20 references on and normal below."""
    min_references: int = Field(8, ge=1)
    """Fewer references than this count as missing."""
    on_missing: Literal["error", "global"] | FiniteFloat = "error"
    """Without references: an error for the conversation, the policy's global snapshot, or this raw score."""


class ResponseBaseline(Section):
    """The raw score of a canned response to the same prompt."""

    response: str = Field(min_length=1)
    """The canned response."""


def _baseline_tag(value: object) -> str:
    if isinstance(value, ResponseBaseline) or (isinstance(value, Mapping) and "response" in value):
        return "<response>"
    return "<stored>" if isinstance(value, StoredBaseline | Mapping) else "<number>"


BaselineConfig = Annotated[
    Annotated[StoredBaseline, Tag("<stored>")]
    | Annotated[ResponseBaseline, Tag("<response>")]
    | Annotated[FiniteFloat, Tag("<number>")],
    Discriminator(_baseline_tag),
]


class TermConfig(Section):
    """One model's part in an objective."""

    model: str
    """Name of a model of this file."""
    name: Name | None = None
    """Name of the term, unique in the objective; the model's name unless given."""
    label: Annotated[int, Field(ge=0)] | str = 0
    """Which output of the model, by index or by name."""
    transform: str
    """What turns the calibrated raw score into the term's number; see the table of transforms."""
    negate: bool = False
    """NOT: the negated number, or the probability of the opposite."""
    clip: list[FiniteFloat] | None = Field(None, min_length=2, max_length=2)
    """Lowest and highest number after the transform."""
    weight: FiniteFloat = Field(1.0, ge=0)
    """Weight in the aggregate; a term of weight 0 is watched, not trained on."""
    baseline: BaselineConfig | None = None
    """Reference reward: stored references of a policy, a canned response, or a number (a raw score)."""

    @property
    def key(self) -> str:
        """The term's name in answers."""
        return self.name or self.model


InputMode = Literal["messages", "raw", "reparse"]


class ObjectiveConfig(Section):
    """A named recipe: terms and an aggregation."""

    name: Name
    """Name of the objective in requests and answers."""
    aggregate: str
    """How the terms become one reward; see the table of aggregations."""
    k: int | None = Field(None, ge=1)
    """For `k_of_n`: how many of the terms must hold."""
    input: InputMode | None = None
    """How trainers' dialects read texts for it: `messages`, `raw` or `reparse`; each dialect's own way unless given."""
    terms: list[TermConfig] = Field(min_length=1)
    """The terms, in the order of the answers."""


class Config(Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    """Where the service listens."""
    store: StoreConfig = StoreConfig()
    """Where baselines are kept."""
    score_cache: ScoreCacheConfig = ScoreCacheConfig()
    """Which raw scores are kept."""
    limits: LimitsConfig = LimitsConfig()
    """What may enter."""
    api_keys: list[ApiKeyConfig] = Field([])
    """Who may call which routes; without any, every caller may call all."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """What the service says of itself."""
    models: list[ModelConfig]
    """The reward models to load; at least one."""
    objectives: list[ObjectiveConfig] = Field([])
    """The objectives to offer."""
