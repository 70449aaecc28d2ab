"""OpenRLHF: a reward function, in a file of your own that the option names.

    # reward.py
    from reward_service.client.trainers.openrlhf import reward_func

    --reward.remote_url reward.py      (before 0.10: --remote_rm_url reward.py)

With arguments instead of the environment: `reward_func = RewardFunc(url="http://host:port", objective="...")`.

OpenRLHF logs an exception of this function at the level INFO and goes on without a reward, which ends the run later
with another message. So it is logged here as an error, too.
"""

import logging
from collections.abc import Sequence
from typing import Any

from reward_service.client.trainers.connecting import connect, refuse_none
from reward_service.client.trainers.rendered import Input, check_input, of_query
from reward_service.client.trainers.rollouts import numbers, plain, term_numbers
from reward_service.rewards.probabilities import probabilities
from reward_service.schemas import ScoreAnswer

logger = logging.getLogger("reward_service.client")


class RewardFunc:
    """`reward_func(queries, prompts, labels)` with arguments of its own: those of `connect`, and `input`.

    `input` is how `queries` are read: `reparse` (rebuild the messages), `raw` or `messages`.
    """

    def __init__(self, *, input: Input = "reparse", **options: Any) -> None:  # noqa: A002
        refuse_none(options, "OpenRLHF has no place for a sample without a reward")
        self._input = check_input(input)
        self._options = options

    def __call__(
        self,
        queries: Sequence[str],
        prompts: Sequence[str] | None = None,
        labels: Sequence[Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Tensors of shape (n,): `rewards`, `scores` (in [0, 1] where the reward can be), and `extra_logs` by term."""
        try:
            return _told(connect(**self._options).score(self._conversations(queries, prompts, labels)))
        except Exception:
            logger.exception("no reward for %d queries", len(queries))
            raise

    def _conversations(
        self, queries: Sequence[str], prompts: Sequence[str] | None, labels: Sequence[Any] | None
    ) -> list[dict[str, Any]]:
        asked: Sequence[str | None] = prompts or [None] * len(queries)
        truths: Sequence[Any] = labels or [None] * len(queries)
        return [
            of_query(query, prompt, self._input, ground_truth=plain(truth))
            for query, prompt, truth in zip(queries, asked, truths, strict=True)
        ]


reward_func = RewardFunc()
"""With the service, the objective and the key of the environment."""


def _told(answer: ScoreAnswer) -> dict[str, Any]:
    import torch

    rewards = numbers(answer)
    terms = [(term.transform, term.weight) for term in answer.recipe.terms]
    scores = probabilities(answer.recipe.aggregate, terms, rewards)
    logs = {name: values for name, values in term_numbers(answer).items() if None not in values}
    return {
        "rewards": torch.tensor(rewards),
        "scores": torch.tensor(rewards if scores is None else scores),
        "extra_logs": {name: torch.tensor(values) for name, values in logs.items()},
    }
