"""Advantages: the group-relative rewards of an answer, computed by service and client alike from the answer itself."""

from collections.abc import Sequence

import numpy as np

from reward_service.rewards.groups import gdpo, grpo, rloo
from reward_service.rewards.scales import Array
from reward_service.schemas import AdvantageRules, Advantages, ConversationScore, ScoreAnswer

SUMS = ("and", "weighted_sum", "mean")
"""The aggregations that are a sum of their terms, as GDPO is."""
NAN = float("nan")


def with_advantages(answer: ScoreAnswer, groups: Sequence[str], asked: Advantages) -> ScoreAnswer:
    """The answer with an advantage beside each reward, from whole groups; none where there is no reward.

    ValueError when the rewards are too large to compare, or GDPO is asked for of terms that are not summed.
    """
    numbers = _advantages(answer, groups, asked).tolist()
    scores = [
        score.model_copy(update={"advantage": None if score.reward is None else advantage})
        for score, advantage in zip(answer.scores, numbers, strict=True)
    ]
    return answer.model_copy(update={"scores": scores, "advantage_rules": AdvantageRules.of(asked)})


def check_sum(asked: Advantages, aggregate: str) -> None:
    """ValueError if the estimator would train on something else than the objective aggregates."""
    if asked.estimator == "gdpo" and aggregate not in SUMS:
        raise ValueError(
            f"gdpo sums the terms of an objective, and this one's aggregate is {aggregate!r}; "
            f"valid for gdpo: {', '.join(SUMS)}; any: grpo, rloo"
        )


def _advantages(answer: ScoreAnswer, groups: Sequence[str], asked: Advantages) -> Array:
    rules = asked.in_force()
    match asked.estimator:
        case "grpo":
            return grpo(_rewards(answer.scores), groups, rules)
        case "rloo":
            return rloo(_rewards(answer.scores), groups, rules)
    if answer.recipe.terms:
        check_sum(asked, answer.recipe.aggregate)
    trained = {term.name: term.weight for term in answer.recipe.terms if term.weight > 0}
    return gdpo([_transformed(answer.scores, name) for name in trained], list(trained.values()), groups, rules)


def _rewards(scores: Sequence[ConversationScore]) -> Array:
    return np.array([NAN if score.reward is None else score.reward for score in scores], dtype=np.float64)


def _transformed(scores: Sequence[ConversationScore], name: str) -> Array:
    """A term's numbers (n,); those of a conversation without a reward take no part, as it does not."""
    return np.array([_number(score, name) for score in scores], dtype=np.float64)


def _number(score: ConversationScore, name: str) -> float:
    found = None if score.reward is None else next(term.transformed for term in score.terms if term.name == name)
    return NAN if found is None else found
