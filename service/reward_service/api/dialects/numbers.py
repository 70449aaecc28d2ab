"""The numbers of an answer beside its rewards: each term's, and the reward as a probability where it is one."""

from collections.abc import Sequence

from reward_service.rewards.probabilities import probabilities as as_probabilities
from reward_service.schemas import ConversationScore, Recipe, ScoreAnswer


def rewards(answer: ScoreAnswer) -> list[float]:
    """The rewards of an answer in which no conversation failed, in request order."""
    return [float(score.reward) for score in answer.scores if score.reward is not None]


def term_numbers(score: ConversationScore) -> dict[str, float]:
    """`NAME/raw` and `NAME/transformed` of each term; a watched term that failed has none."""
    named = (
        (f"{term.name}/{kind}", number)
        for term in score.terms
        for kind, number in (("raw", term.raw), ("transformed", term.transformed))
    )
    return {name: number for name, number in named if number is not None}


def term_lists(answer: ScoreAnswer) -> dict[str, list[float]]:
    """The `term_numbers` of all conversations, as one list each; a name that one of them lacks is left out."""
    names = [f"{term.name}/{kind}" for term in answer.recipe.terms for kind in ("raw", "transformed")]
    each = [term_numbers(score) for score in answer.scores]
    return {name: [one[name] for one in each] for name in names if all(name in one for one in each)}


def probabilities(recipe: Recipe, numbers: Sequence[float]) -> list[float] | None:
    """Rewards of an objective as probabilities in [0, 1]; None where they are none."""
    return as_probabilities(recipe.aggregate, [(term.transform, term.weight) for term in recipe.terms], numbers)
