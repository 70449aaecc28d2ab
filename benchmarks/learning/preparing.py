"""Where every run begins: a decoder that has read the world is the policy, and two reward models grow from it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.learning.sizes import Sizes
from benchmarks.learning.world import ATTRIBUTES, World

from reward_service.training.margins import accuracy, fit_temperature
from reward_service.training.preferences import Message
from reward_service.training.recipe import Start, pair_margins, save, train_reward_model, warm_start

LABELLED_IN, HELD_OUT = 0, 1
"""Seeds of the pairs that are trained on, and of those that accuracy and temperature are taken from."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Folders with `policy`, `detail` and `brevity`, and what was measured of the two reward models."""

    folder: Path
    figures: dict[str, Any]

    @property
    def temperatures(self) -> dict[str, float]:
        """Fitted on held-out pairs."""
        return {name: self.figures[name]["temperature"] for name in ATTRIBUTES}


def prepare(world: World, sizes: Sizes, folder: Path) -> Prepared:
    """Train what `folder` does not hold yet; the same world seed gives the same weights on the same machine."""
    record = folder / "prepared.json"
    if not record.exists():
        torch.set_num_threads(1)
        seed = sizes.world_seed
        start = warm_start(read_texts(world, seed, sizes.texts), sizes.recipe, seed)
        start.decoder.save_pretrained(folder / "policy")
        start.tokenizer.save_pretrained(folder / "policy")
        figures = {name: _reward_model(world, name, start, seed, sizes, folder / name) for name in ATTRIBUTES}
        record.write_text(json.dumps(figures))
    return Prepared(folder, json.loads(record.read_text()))


def read_texts(world: World, seed: int, count: int) -> list[list[Message]]:
    """Questions with what people would say: what the initial policy imitates."""
    random = np.random.default_rng([seed, 3])
    prompts = world.prompts
    asked = [prompts[index] for index in random.integers(len(prompts), size=count)]
    return [
        [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": world.response(random, prompt)}]
        for prompt in asked
    ]


def _reward_model(
    world: World, attribute: str, start: Start, seed: int, sizes: Sizes, folder: Path
) -> dict[str, float | int]:
    model = train_reward_model(start, world.pairs(attribute, sizes.pairs, LABELLED_IN), sizes.recipe, seed)
    save(model, start.tokenizer, folder)
    margins = pair_margins(model, start.tokenizer, world.pairs(attribute, sizes.held_out_pairs, HELD_OUT))
    return {"accuracy": accuracy(margins), "temperature": fit_temperature(margins), "pairs": len(margins)}
