"""Group-relative rewards: by how much each response stands out among the responses to its prompt.

Functions take the rewards of one batch, shape (n,), NaN where a response has none, and the group of each, n names of
any kind; they return shape (n,), NaN where there was no reward. What is missing takes no part in any mean or standard
deviation. Rewards are taken relative to the least of their group first, so that equal rewards give 0 exactly.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from reward_service.rewards.scales import Array

Scaling = Literal["group", "batch", "none"]
Singleton = Literal["zero", "raw"]
LARGEST = 1e150
"""Beyond it the square of a reward is no number."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers that papers leave open and trainers choose; ValueError for one that is not valid.

    A variance divides by the count less `ddof`. GRPO divides by `eps` plus the std of the group or of the whole batch
    (`scale`). A reward that is alone in its group becomes 0, or (`singleton` = "raw") is taken with a mean of 0 and a
    std of 1. GDPO divides by sqrt(variance + `batch_variance_eps`) + `batch_eps` in the end.
    """

    ddof: int
    eps: float
    scale: Scaling
    singleton: Singleton
    batch_eps: float
    batch_variance_eps: float

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof = {self.ddof}; valid: 0 or 1")
        if not 0.0 < self.eps < np.inf:
            raise ValueError(f"eps = {self.eps}; valid: a finite number above 0")
        if min(self.batch_eps, self.batch_variance_eps) < 0.0 or not 0.0 < self.batch_floor < np.inf:
            raise ValueError(
                f"batch_eps = {self.batch_eps}, batch_variance_eps = {self.batch_variance_eps}; "
                "valid: finite numbers of at least 0, not both 0"
            )

    @property
    def batch_floor(self) -> float:
        """What GDPO divides by when nothing varies."""
        return float(np.sqrt(self.batch_variance_eps)) + self.batch_eps


RULES = {
    "trl": Rules(ddof=1, eps=1e-4, scale="group", singleton="zero", batch_eps=1e-4, batch_variance_eps=0.0),
    "verl": Rules(ddof=1, eps=1e-6, scale="group", singleton="raw", batch_eps=0.0, batch_variance_eps=1e-8),
}
"""The rules by whose they are: the defaults of TRL's GRPOTrainer and RLOOTrainer, and of verl's estimators."""
TRL = RULES["trl"]


def grpo(rewards: Array, groups: Sequence[Hashable], rules: Rules = TRL) -> Array:
    """(r - mean) / (std + eps) of the group, shape (n,), in stds (DeepSeekMath, arXiv:2402.03300).

    `scale` = "none" is r - mean, in units of r (Dr. GRPO, arXiv:2503.20783); "batch" divides by the std of all rewards.
    """
    grouped = _Grouped.of(rewards, groups)
    deviations = grouped.deviations(rules.singleton)
    match rules.scale:
        case "none":
            return deviations
        case "batch":
            return deviations / (_std(rewards, rules.ddof) + rules.eps)
    return deviations / (grouped.stds(rules.ddof) + rules.eps)


def rloo(rewards: Array, groups: Sequence[Hashable], rules: Rules = TRL) -> Array:
    """r - mean of the others in the group, shape (n,), units of r (Ahmadian et al. 2024, arXiv:2402.14740)."""
    grouped = _Grouped.of(rewards, groups)
    larger: Array = grouped.counts / np.maximum(grouped.counts - 1.0, 1.0)
    return grouped.deviations(rules.singleton) * larger


def gdpo(
    terms: Sequence[Array],
    weights: Sequence[float],
    groups: Sequence[Hashable],
    rules: Rules = TRL,
    tokens: Array | None = None,
) -> Array:
    """Sum of w x each term's GRPO, standardised over the batch, shape (n,) (GDPO, arXiv:2601.05242).

    A response that lacks some of the terms has the sum of the others; one that lacks all has none. With `tokens` (n,),
    the lengths of the responses, the batch's mean and variance are those over tokens, as in verl.
    """
    total, there = np.zeros(len(groups)), np.zeros(len(groups), dtype=bool)
    for term, weight in zip(terms, weights, strict=True):
        relative = grpo(term, groups, replace(rules, scale="group"))
        total += weight * np.nan_to_num(relative)
        there |= ~np.isnan(relative)
    return _standardized(np.where(there, total, np.nan), np.ones(len(groups)) if tokens is None else tokens, rules)


def _standardized(numbers: Array, tokens: Array, rules: Rules) -> Array:
    """Less the mean, over sqrt(variance + batch_variance_eps) + batch_eps, each number as often as it has tokens."""
    _check_size(numbers)
    there = ~np.isnan(numbers)
    total = np.sum(tokens[there])
    deviations = numbers - np.sum((tokens * numbers)[there]) / max(total, 1.0)
    free = total - rules.ddof
    variance = np.sum((tokens * deviations**2)[there]) / free if free > 0.0 else 0.0
    standardized: Array = deviations / (np.sqrt(variance + rules.batch_variance_eps) + rules.batch_eps)
    return standardized


def _check_size(rewards: Array) -> None:
    """ValueError for what has no square, rather than a std of infinity and advantages of 0."""
    if np.any(np.abs(rewards[~np.isnan(rewards)]) > LARGEST):
        raise ValueError(f"a reward is beyond {LARGEST:g}: its square is no number")


def _std(rewards: Array, ddof: int) -> float:
    """The std of all rewards that there are; 1 for fewer than two."""
    there = rewards[~np.isnan(rewards)]
    return float(np.std(there - there[0], ddof=ddof)) if len(there) > 1 else 1.0


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Rewards (n,), and the group of each as a number from 0 on; ValueError for rewards that cannot be compared."""

    rewards: Array
    index: NDArray[np.int64]
    there: NDArray[np.bool_]

    @classmethod
    def of(cls, rewards: Array, groups: Sequence[Hashable]) -> Self:
        if rewards.shape != (len(groups),):
            raise ValueError(f"rewards of shape {rewards.shape} for {len(groups)} groups; give each reward its group")
        _check_size(rewards)
        numbers: dict[Hashable, int] = {}
        index = [numbers.setdefault(group, len(numbers)) for group in groups]
        return cls(rewards, np.array(index, dtype=np.int64), ~np.isnan(rewards))

    @property
    def counts(self) -> Array:
        """Rewards that there are in the group of each, shape (n,)."""
        return self._total(np.ones(len(self.rewards)))

    def deviations(self, singleton: Singleton) -> Array:
        """r - mean of the group, shape (n,); of a reward alone 0, or the reward itself."""
        counts = self.counts
        least = np.full(len(counts), np.inf)
        np.minimum.at(least, self.index[self.there], self.rewards[self.there])
        above = np.where(self.there, self.rewards - np.where(self.there, least[self.index], 0.0), np.nan)
        deviations = above - self._total(above) / np.maximum(counts, 1.0)
        return np.where(counts == 1.0, self.rewards, deviations) if singleton == "raw" else deviations

    def stds(self, ddof: int) -> Array:
        """The std of the group, shape (n,); 1 for fewer than two rewards."""
        counts = self.counts
        variances = self._total(self.deviations("zero") ** 2) / np.maximum(counts - ddof, 1.0)
        return np.where(counts > 1.0, np.sqrt(variances), 1.0)

    def _total(self, numbers: Array) -> Array:
        """The sum over what there is in the group of each, shape (n,)."""
        there = np.where(self.there, numbers, 0.0)
        return np.asarray(np.bincount(self.index, there), dtype=np.float64)[self.index]


def group_problems(groups: Sequence[str | None], sizes: Sequence[int | None]) -> list[str]:
    """What hinders n conversations, each with its `group` and `group_size`, from being whole groups, one sentence each.

    A group whose conversations name no size is not checked.
    """
    problems = [
        f"conversations[{i}]: group_size {size} without a `group`"
        for i, (group, size) in enumerate(zip(groups, sizes, strict=True))
        if group is None and size is not None
    ]
    named: dict[str, list[int | None]] = {}
    for group, size in zip(groups, sizes, strict=True):
        if group is not None:
            named.setdefault(group, []).append(size)
    return [*problems, *(problem for group, found in named.items() if (problem := _size_problem(group, found)))]


def _size_problem(group: str, sizes: Sequence[int | None]) -> str | None:
    told = list(dict.fromkeys("none" if size is None else str(size) for size in sizes))
    if len(told) > 1:
        return f"group {group!r:.80}: group_size is {' and '.join(told)}; all conversations of a group name one size"
    if sizes[0] is None or sizes[0] == len(sizes):
        return None
    return f"group {group!r:.80}: {len(sizes)} conversations in the request, and group_size is {sizes[0]}"
