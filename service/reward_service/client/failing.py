"""What becomes of conversations without a reward: the client's `on_failure`."""

import logging
from collections import Counter

from pydantic import Field

from reward_service.client.errors import ScoringFailed
from reward_service.client.settings import OnFailure
from reward_service.schemas import ScoreAnswer

logger = logging.getLogger("reward_service.client")


class Substituted(ScoreAnswer):
    """An answer whose `rewards` have a number that the caller chose where a conversation has an error."""

    substitute: float = Field(exclude=True)

    @property
    def rewards(self) -> list[float | None]:
        """The rewards in request order; the chosen number where there is an error, which `scores` still holds."""
        return [score.reward if score.error is None else self.substitute for score in self.scores]


def resolved(answer: ScoreAnswer, on_failure: OnFailure) -> ScoreAnswer:
    """The answer as `on_failure` wants it: ScoringFailed, None, or a number in `rewards`, and then it is logged."""
    failed = [score.error for score in answer.scores if score.error is not None]
    if not failed:
        return answer
    if on_failure == "raise":
        raise ScoringFailed(answer.scores)
    codes = ", ".join(f"{code}: {count}" for code, count in Counter(error.code for error in failed).most_common())
    became = "None" if on_failure == "none" else repr(on_failure)
    logger.warning(
        "%d of %d conversations have no reward (%s) and get %s: %s",
        len(failed),
        len(answer.scores),
        codes,
        became,
        failed[0].detail,
    )
    if on_failure == "none":
        return answer
    return Substituted.model_construct(**dict(answer), substitute=float(on_failure))
