"""The Engine protocol and the small types that cross it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.errors import ServiceError

Message = Mapping[str, Any]


class Priority(IntEnum):
    """Who goes first when both wait; smaller is sooner."""

    ROLLOUT = 0
    JOB = 1


@dataclass(frozen=True, slots=True)
class Item:
    """One conversation for a model: `messages`, or `text` that is already rendered (exactly one of them)."""

    messages: Sequence[Message] | None = None
    text: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    metadata: Mapping[str, Any] | None = None
    group: str | None = None
    ground_truth: Any = None
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model says of one item.

    `outputs` has one float64 per label; `variance` (labels,) or a covariance (labels, labels); `steps` one row of
    outputs per step of a process model; `features` what a posterior needs. `tokens` were rendered, `tokens_computed`
    went through the device for this item (without a beginning that it shares with another item of its batch; 0 when an
    equal item was computed in its stead); times are seconds;
    `cached` says that the outputs were kept from an earlier request.
    """

    outputs: NDArray[np.float64]
    tokens: int
    tokens_computed: int
    variance: NDArray[np.float64] | None = None
    steps: NDArray[np.float64] | None = None
    features: NDArray[np.float64] | None = None
    response_tokens: int | None = None
    queue_s: float = 0.0
    compute_s: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item has no estimate; its neighbours are not affected."""

    error: ServiceError


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What decides a model's numbers, hashed: `value` is `sha256:...`, `kind` is `weights` or `observed`."""

    value: str
    kind: str


@dataclass(frozen=True, slots=True)
class Parity:
    """What the check at load found: over so many conversations, the largest difference beside its tolerance.

    `mode` is `reference` (compared with Transformers) or `self`; the numbers are None where nothing was compared.
    """

    mode: str
    conversations: int
    difference: float | None
    tolerance: float | None


@dataclass(frozen=True, slots=True)
class EngineCard:
    """What an engine says of itself once it has started; `labels` names the outputs in order."""

    engine: str
    labels: tuple[str, ...]
    fingerprint: Fingerprint
    dtype: str
    device: str
    max_tokens: int
    parameters: int | None = None
    parity: Parity | None = None


class Engine(Protocol):
    """What computes the scores of one model."""

    @property
    def card(self) -> EngineCard:
        """What the engine is; known once `start` has returned."""

    @property
    def failure(self) -> str | None:
        """Why it cannot score now, in one sentence; None when it can."""

    @property
    def work_s(self) -> float:
        """How long what it has accepted will take; 0 as long as that is not known."""

    async def start(self) -> None:
        """Load and warm up; raises what hinders it."""

    async def score(
        self,
        items: Sequence[Item],
        *,
        priority: Priority,
        deadline: float,
        admitted: bool = False,
        use_cache: bool = True,
    ) -> list[Estimate | ItemError]:
        """One result per item, in order. `deadline` is an absolute `time.monotonic()`.

        Raises Overloaded or TooLarge when the request as a whole cannot enter; cancelling the call removes its work.
        `admitted` says that the items belong to a request that is inside already: they wait for room, in turn and
        until the deadline, and are never refused as Overloaded. Without `use_cache` no kept score is returned and
        none is kept.
        """

    async def close(self) -> None:
        """Finish what was accepted, then stop."""
