"""How large an experiment is, in one place."""

from dataclasses import dataclass, field

from reward_service.training.bradley_terry import BradleyTerry
from reward_service.training.language_model import Architecture, WarmUp
from reward_service.training.recipe import Recipe


def recipe(epochs: int) -> Recipe:
    """Policy and reward models: two layers, one tokenizer."""
    return Recipe(
        vocab_size=600,
        architecture=Architecture(
            hidden_size=128, intermediate_size=256, num_layers=2, num_heads=2, max_position_embeddings=256
        ),
        warm_up=WarmUp(epochs=epochs, block_tokens=64, batch_blocks=8, learning_rate=3e-3),
        bradley_terry=BradleyTerry(epochs=1, batch_pairs=32, learning_rate=1.5e-3, token_dropout=0.0),
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """The experiment of the docs; `SMOKE` is the same in half a minute."""

    topics: int = 30
    texts: int = 6_000
    pairs: int = 12_000
    held_out_pairs: int = 1_000
    recipe: Recipe = field(default_factory=lambda: recipe(epochs=5))
    references: int = 32
    """Responses of the initial policy that make a prompt's baseline."""
    measured: int = 48
    """Responses per prompt before and after."""
    steps: int = 40
    learning_rate: float = 1e-3
    prompts_per_step: int = 8
    group: int = 8
    max_completion_tokens: int = 48
    world_seed: int = 0
    """Draws the topics, the initial policy and the reward models."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each draws a run of every arm: its responses, and the order of its prompts."""
    more_seeds: tuple[int, ...] = (3, 4, 5, 6, 7)
    """The same, run when the first had been seen, and reported on their own."""
    search_seed: int = 100
    """Draws the runs by which the weights are chosen."""
    weights: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
    """Of detail; brevity has the rest."""
    scales: tuple[str, ...] = ("none", "group")


FULL = Sizes()
SMOKE = Sizes(
    topics=10,
    texts=120,
    pairs=96,
    held_out_pairs=64,
    recipe=recipe(epochs=1),
    references=8,
    measured=4,
    steps=2,
    prompts_per_step=2,
    group=4,
    max_completion_tokens=12,
    seeds=(0,),
    more_seeds=(),
    weights=(0.5, 0.7),
    scales=("group",),
)
