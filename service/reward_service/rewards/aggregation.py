"""Aggregations: from the typed values of an objective's terms to one reward a conversation.

Functions take m terms of n conversations on one scale, and weights of shape (m,); all return shape (n,).
Sums run over the terms in order, so a conversation's reward does not depend on its neighbours in the request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, log

import numpy as np

from reward_service.rewards.scales import Array, Scale, Values
from reward_service.rewards.transforms import TRANSFORMS


def conjunction(terms: Sequence[Values], weights: Array) -> Array:
    """AND: sum of w log p, nats, <= 0: log P(all hold) if independent, at weights 1 (arXiv:2402.00742, u_AND)."""
    return weighted_sum(terms, weights)


def disjunction(terms: Sequence[Values]) -> Array:
    """OR: log(1 - prod (1 - p)), nats, <= 0: log P(any holds) if independent, from pairs (arXiv:2402.00742)."""
    return at_least(terms, 1)


def at_least(terms: Sequence[Values], k: int | None) -> Array:
    """k of n: log P(at least k of the terms hold) if independent, nats, <= 0, from log-probabilities; 1 <= k <= m.

    The Poisson-binomial tail by the recursion P_i(j) = P_{i-1}(j) (1 - p_i) + P_{i-1}(j - 1) p_i (Barlow and Heidtmann
    1984, IEEE Trans. Reliability R-33:322), in logs: only positive terms meet, so nothing cancels. A tail above one
    half comes from its complement, which keeps log P exact to the last digits near 0. NaN in a term gives NaN.
    """
    if k is None or not 1 <= k <= len(terms):
        raise ValueError(f"k = {k}: it must be 1 to {len(terms)}, the number of terms")
    count = np.full((len(terms) + 1, len(terms[0].value)), -np.inf)
    count[0] = 0.0
    with np.errstate(invalid="ignore"):  # logaddexp warns of NaN, which here is an answer
        for term in terms:
            count[1:] = np.logaddexp(count[1:] + _complement(term), count[:-1] + term.value)
            count[0] += _complement(term)
        holds: Array = np.logaddexp.reduce(count[k:], axis=0)
        fails: Array = np.logaddexp.reduce(count[:k], axis=0)
    return np.where(holds > -log(2.0), np.log1p(-np.exp(np.minimum(fails, -log(2.0)))), holds)


def geometric(terms: Sequence[Values], weights: Array) -> Array:
    """Product of p^w, in [0, 1]: the weighted product of probabilities (Genest and Zidek 1986, Stat. Sci. 1:114)."""
    product = np.ones_like(terms[0].value)
    for term, weight in zip(terms, weights, strict=True):
        product *= term.value**weight
    return product


def weighted_sum(terms: Sequence[Values], weights: Array) -> Array:
    """Sum of w x, any scale, units of x: the linear mix of rewards (Wu et al. 2023, arXiv:2306.01693)."""
    total = np.zeros(len(terms[0].value))
    for term, weight in zip(terms, weights, strict=True):
        total += weight * term.value
    return total


def mean(terms: Sequence[Values], weights: Array) -> Array:
    """Sum of w x / sum of w, any scale, units of x: the ensemble's mean (Coste et al. 2023, arXiv:2310.02743)."""
    return weighted_sum(terms, weights) / np.sum(weights)


def minimum(terms: Sequence[Values]) -> Array:
    """The least x, any scale, units of x: worst-case optimisation (Coste et al. 2023, arXiv:2310.02743)."""
    least: Array = np.min(_stacked(terms), axis=0)
    return least


def median(terms: Sequence[Values]) -> Array:
    """The median x, any scale, units of x; of an even number the mean of the middle two (arXiv:2312.09244)."""
    return np.median(_stacked(terms), axis=0)


Combine = Callable[[Sequence[Values], Array, int | None], Array]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """An aggregation by name, and what it accepts: the scales, whether weights must be 0 or 1, whether it needs k."""

    name: str
    scales: frozenset[Scale]
    unit_weights: bool
    needs_k: bool
    combine: Combine

    def apply(self, terms: Sequence[Values], weights: Array, k: int | None = None) -> Array:
        """One number a conversation, shape (n,); terms of weight 0 are watched and left out, even if NaN.

        The terms, weights and k are valid by `check_terms`; NaN in any other term gives NaN.
        """
        trained = [term for term, weight in zip(terms, weights, strict=True) if weight != 0.0]
        return self.combine(trained, weights[weights != 0.0], k)


def check_terms(aggregation: str, scales: Sequence[Scale], weights: Sequence[float], k: int | None) -> list[str]:
    """All that is wrong with an objective, one sentence each, naming the value and what is valid; empty when right.

    `scales` and `weights` have one entry a term; the scale of a term of weight 0 is free, since it is only watched.
    """
    if aggregation not in AGGREGATIONS:
        return [f"no aggregation {aggregation!r}; valid: {', '.join(AGGREGATIONS)}"]
    chosen = AGGREGATIONS[aggregation]
    trained = {index: scale for index, (scale, weight) in enumerate(zip(scales, weights, strict=True)) if weight != 0.0}
    if not trained:
        return [f"aggregate = {aggregation!r} has no term of weight above 0; at least one is needed"]
    return [
        *_scale_problems(chosen, trained),
        *_weight_problems(chosen, weights),
        *_k_problems(chosen, len(trained), k),
    ]


def _scale_problems(chosen: Aggregation, trained: dict[int, Scale]) -> list[str]:
    refused = {index: scale for index, scale in trained.items() if scale not in chosen.scales}
    if refused:
        fit = [transform.name for transform in TRANSFORMS.values() if transform.scale in chosen.scales]
        return [
            f"terms[{index}] is {scale}, but aggregate = {chosen.name!r} takes {', '.join(sorted(chosen.scales))}; "
            f"transforms that fit: {', '.join(fit)}"
            for index, scale in refused.items()
        ]
    if len(set(trained.values())) > 1:
        mixed = ", ".join(f"terms[{index}] is {scale}" for index, scale in trained.items())
        return [f"aggregate = {chosen.name!r} needs all terms on one scale, but {mixed}"]
    return []


def _weight_problems(chosen: Aggregation, weights: Sequence[float]) -> list[str]:
    problems = []
    for index, weight in enumerate(weights):
        if not (isfinite(weight) and weight >= 0.0):
            problems.append(f"terms[{index}] has weight {weight}; valid: a finite number of at least 0")
        elif chosen.unit_weights and weight not in (0.0, 1.0):
            problems.append(
                f"terms[{index}] has weight {weight}; aggregate = {chosen.name!r} takes 1, or 0 to watch it"
            )
    return problems


def _k_problems(chosen: Aggregation, trained: int, k: int | None) -> list[str]:
    if not chosen.needs_k:
        return [] if k is None else [f"k = {k} is not for aggregate = {chosen.name!r}; only k_of_n takes it"]
    if k is None:
        return [f"aggregate = {chosen.name!r} needs k; valid: 1 to {trained}, the number of terms not just watched"]
    if not 1 <= k <= trained:
        return [f"k = {k} is out of range; valid: 1 to {trained}, the number of terms not just watched"]
    return []


def _stacked(terms: Sequence[Values]) -> Array:
    return np.stack([term.value for term in terms])


def _complement(term: Values) -> Array:
    if term.complement is None:
        raise ValueError("a real number has no complement; use a log-probability")
    return term.complement


_LOG = frozenset({Scale.LOG_PROBABILITY})
_ANY = frozenset(Scale)

AGGREGATIONS: dict[str, Aggregation] = {
    aggregation.name: aggregation
    for aggregation in (
        Aggregation("and", _LOG, False, False, lambda terms, weights, _k: conjunction(terms, weights)),
        Aggregation("or", _LOG, True, False, lambda terms, _weights, _k: disjunction(terms)),
        Aggregation("k_of_n", _LOG, True, True, lambda terms, _weights, k: at_least(terms, k)),
        Aggregation(
            "geometric",
            frozenset({Scale.PROBABILITY}),
            False,
            False,
            lambda terms, weights, _k: geometric(terms, weights),
        ),
        Aggregation("weighted_sum", _ANY, False, False, lambda terms, weights, _k: weighted_sum(terms, weights)),
        Aggregation("mean", _ANY, False, False, lambda terms, weights, _k: mean(terms, weights)),
        Aggregation("min", _ANY, True, False, lambda terms, _weights, _k: minimum(terms)),
        Aggregation("median", _ANY, True, False, lambda terms, _weights, _k: median(terms)),
    )
}
