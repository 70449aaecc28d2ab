"""What all runs of one world stand on: its models behind a live service, its baselines, its scores before training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from benchmarks.learning.measuring import Figures, by_attribute, gains, measured, share_worse
from benchmarks.learning.objectives import serving_arms
from benchmarks.learning.preparing import Prepared, prepare
from benchmarks.learning.sampling import divergence, load, sampled
from benchmarks.learning.scoring import Array, Scored, put_references, scored, within_std
from benchmarks.learning.sizes import Sizes
from benchmarks.learning.training import Log, Run, trained
from benchmarks.learning.world import World

from reward_service.client import Client

REFERENCES, BEFORE, AFTER = 1, 2, 3
"""Seeds of the responses that make the baselines, and of those that are measured."""
SHOWN_EVERY = 9
"""Of the held-out prompts, whose first response stands in the results."""
LOGGED = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
)


@dataclass(frozen=True, slots=True)
class Ground:
    """One world, ready for runs.

    `references` are scores of the initial policy on all prompts, `before` on those that are measured.
    """

    world: World
    prepared: Prepared
    sizes: Sizes
    url: str
    client: Client
    references: Scored
    before: Scored

    def factor(self, arm: str) -> float:
        """What lets an arm's rewards vary by 1 within the initial policy's responses to a prompt."""
        return 1.0 / float(within_std(self.references.rewards(arm)))

    def run(self, run: Run) -> Figures:
        """Train the policy by one arm and measure it."""
        initial, factor = self.prepared.folder / "policy", self.factor(run.arm)
        policy, log = trained(initial, self.world.train, self.url, run, factor, self.sizes)
        return {**asdict(run), "factor": factor, **self._measured(policy, initial), "log": _columns(log)}

    def facts(self) -> Figures:
        """What the reward models and the initial policy are like."""
        calibrated = self.before.calibrated
        return {
            **self.prepared.figures,
            "std": by_attribute(calibrated.reshape(-1, 2).std(axis=0, ddof=1)),
            "std_within_prompts": by_attribute(within_std(calibrated)),
            "std_within_prompts_true": by_attribute(within_std(self.before.true)),
            "correlation_with_true_within_prompts": by_attribute(self._agreement()),
            "share_worse_without_training": self._noise(),
        }

    def _agreement(self) -> Array:
        """Correlation of calibrated and true scores within prompts, by attribute."""
        deviations = [of - of.mean(axis=1, keepdims=True) for of in (self.before.calibrated, self.before.true)]
        return np.array([np.corrcoef(*(of[..., at].ravel() for of in deviations))[0, 1] for at in range(2)])

    def _noise(self) -> float:
        """The share of held-out prompts that seem worse untrained: both samples are the initial policy's."""
        held_out = slice(-len(self.world.held_out), None)
        before, again = self.before.of(held_out), self.references.of(held_out)
        return share_worse(gains(before.calibrated, again.calibrated))

    def _measured(self, policy: object, initial: Path) -> Figures:
        prompts, sizes, half = self.world.measured, self.sizes, len(self.world.held_out)
        first, tokenizer = load(initial)
        texts = [prompt.text for prompt in prompts]
        responses = sampled(policy, tokenizer, texts, sizes.measured, sizes.max_completion_tokens, AFTER)
        after = scored(self.client, self.world, prompts, responses)
        return {
            "trained_on": measured(self.before.of(slice(half)), after.of(slice(half))),
            "held_out": measured(self.before.of(slice(half, None)), after.of(slice(half, None))),
            "kl": divergence(policy, first, tokenizer, texts[half:], responses[half:]),
            "examples": {text: of[0] for text, of in list(zip(texts, responses, strict=True))[half::SHOWN_EVERY]},
        }


@contextmanager
def opened(sizes: Sizes, folder: Path) -> Iterator[Ground]:
    """Train what `folder` lacks, start the service and give it the baselines of the initial policy."""
    world = World(sizes.world_seed, sizes.topics)
    prepared = prepare(world, sizes, folder)
    policy, tokenizer = load(folder / "policy")
    references, before = (
        sampled(policy, tokenizer, [prompt.text for prompt in prompts], count, sizes.max_completion_tokens, seed)
        for prompts, count, seed in (
            (world.prompts, sizes.references, REFERENCES),
            (world.measured, sizes.measured, BEFORE),
        )
    )
    with serving_arms(prepared, sizes) as url, Client(url) as client:
        put_references(client, world.prompts, references)
        scores = scored(client, world, world.prompts, references), scored(client, world, world.measured, before)
        yield Ground(world, prepared, sizes, url, client, *scores)


def _columns(log: Log) -> dict[str, list[float]]:
    return {name: [round(float(entry[name]), 3) for entry in log] for name in LOGGED if name in log[0]}
