"""Scores of many responses by the live service, and the true attributes beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.learning.objectives import POLICY, weights_of
from benchmarks.learning.world import ATTRIBUTES, Prompt, World
from numpy.typing import NDArray

from reward_service.client import Client

Array = NDArray[np.float64]
Responses = Sequence[Sequence[str]]
"""As many responses to each prompt."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of responses to some prompts, each (prompts, responses, 2) in nats, `detail` first.

    calibrated is raw over temperature, log_p the log-probability to beat the prompt's baseline, true the attribute.
    """

    calibrated: Array
    log_p: Array
    true: Array

    def of(self, prompts: slice) -> "Scored":
        """Those of some of the prompts."""
        return Scored(self.calibrated[prompts], self.log_p[prompts], self.true[prompts])

    def rewards(self, arm: str) -> Array:
        """What an arm makes of the scores, (prompts, responses)."""
        weights = weights_of(arm)
        numbers = self.log_p if weights is None else self.calibrated * weights
        rewards: Array = numbers.sum(-1)
        return rewards


def put_references(client: Client, prompts: Sequence[Prompt], responses: Responses) -> None:
    """Make responses of the initial policy the baselines of their prompts, for good."""
    entries = [{"prompt": prompt.text, "responses": of} for prompt, of in zip(prompts, responses, strict=True)]
    for model in ATTRIBUTES:
        client.put_baselines(model, POLICY, entries, policy_revision="warmed-up", idempotency_key="references")
    client.freeze_baselines(POLICY)


def scored(client: Client, world: World, prompts: Sequence[Prompt], responses: Responses) -> Scored:
    """What the service says of responses, by its objective `and`."""
    asked = [
        {"prompt": prompt.text, "response": response}
        for prompt, of_prompt in zip(prompts, responses, strict=True)
        for response in of_prompt
    ]
    terms = [score.terms for score in client.score(asked, "and").scores]
    numbers = np.array([[(term.raw, term.temperature, term.transformed) for term in of] for of in terms], dtype=float)
    raw, temperatures, log_p = np.moveaxis(numbers.reshape(len(prompts), -1, len(ATTRIBUTES), 3), -1, 0)
    return Scored(raw / temperatures, log_p, _true(world, prompts, responses))


def within_std(scores: Array) -> Array:
    """The pooled std of the responses to one prompt; scores (prompts, responses, ...)."""
    std: Array = np.sqrt(scores.var(axis=1, ddof=1).mean(axis=0))
    return std


def _true(world: World, prompts: Sequence[Prompt], responses: Responses) -> Array:
    return np.array(
        [
            [(world.detail(prompt, one), world.brevity(prompt, one)) for one in of]
            for prompt, of in zip(prompts, responses, strict=True)
        ]
    )
