"""Whole groups: what a request must hold before group-relative rewards are worth their name."""

from reward_service.advantages import check_sum, with_advantages
from reward_service.errors import InvalidRequest, NotFinite
from reward_service.objectives import Objective
from reward_service.rewards.groups import group_problems
from reward_service.schemas import ScoreAnswer, ScoreRequest

MOST_TOLD = 20


def check_groups(request: ScoreRequest, objective: Objective) -> None:
    """InvalidRequest for a group that is not whole; with `advantages`, also for a conversation without one."""
    groups = [one.group for one in request.conversations]
    sizes = [one.group_size for one in request.conversations]
    problems = [] if request.advantages is None else _ungrouped(groups, sizes)
    if any(size is not None for size in sizes):
        problems += group_problems(groups, sizes)
    if request.advantages is not None:
        problems += _estimator_problems(request, objective)
    if problems:
        told = [*problems[:MOST_TOLD], *([f"{len(problems)} problems in all"] if len(problems) > MOST_TOLD else [])]
        raise InvalidRequest("; ".join(told), told)


def advantaged(answer: ScoreAnswer, request: ScoreRequest) -> ScoreAnswer:
    """The answer with the advantages that the request asks for; NotFinite when its rewards are too large for them."""
    if request.advantages is None:
        return answer
    try:
        return with_advantages(answer, [str(one.group) for one in request.conversations], request.advantages)
    except ValueError as error:
        raise NotFinite(f"advantages: {error}") from error


def _ungrouped(groups: list[str | None], sizes: list[int | None]) -> list[str]:
    return [
        f"conversations[{i}]: no valid {'group' if group is None else 'group_size'}; for advantages all need both"
        for i, (group, size) in enumerate(zip(groups, sizes, strict=True))
        if size is None or group is None
    ]


def _estimator_problems(request: ScoreRequest, objective: Objective) -> list[str]:
    try:
        if request.advantages is not None:
            check_sum(request.advantages, objective.recipe.aggregate)
    except ValueError as error:
        return [f"advantages.estimator: {error}"]
    return []
