"""What the waiters of a piece of work are told, on their event loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.engine import Estimate, ItemError
from reward_service.engine.waiting import Waiter, Work


@dataclass(frozen=True, slots=True)
class Computed:
    """The outputs of a piece of work and the tokens computed for it; when its batch started, how long it took and
    how long it was paused.
    """

    outputs: NDArray[np.float64]
    tokens: int
    started: float
    seconds: float
    paused_s: float

    def estimate(self, work: Work, waiter: Waiter, tokens_computed: int) -> Estimate:
        """What one of its waiters is told; a pause is time in the queue."""
        return Estimate(
            outputs=self.outputs,
            tokens=work.tokens,
            tokens_computed=tokens_computed,
            response_tokens=waiter.response_tokens,
            queue_s=max(0.0, self.started - waiter.since) + self.paused_s,
            compute_s=self.seconds,
        )


Answered = Sequence[tuple[Work, Computed | ItemError]]


def deliver(answered: Answered) -> None:
    """Answers who still waits. The first who is answered bears the tokens that were computed for an item."""
    for work, answer in answered:
        bears = answer.tokens if isinstance(answer, Computed) else 0
        for waiter in [waiter for waiter in work.waiters.values() if not waiter.answer.done()]:
            waiter.answer.set_result(
                answer if isinstance(answer, ItemError) else answer.estimate(work, waiter, tokens_computed=bears)
            )
            bears = 0
