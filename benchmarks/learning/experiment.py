"""The protocol: the weights, then all arms over all seeds; every run is kept when it ends."""

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.learning.correlation import advantage_correlations
from benchmarks.learning.ground import Ground, opened
from benchmarks.learning.measuring import Figures
from benchmarks.learning.objectives import RAW_SUM, weighted
from benchmarks.learning.sizes import Sizes
from benchmarks.learning.training import Run

CONJUNCTION = "and"
SHOWN = ("gain", "smaller_gain", "share_worse")


class Kept:
    """Runs that a file holds, a line each, and those that are added to it: a cut session loses one run at most."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self._runs: list[Figures] = [json.loads(line) for line in lines]

    def run(self, ground: Ground, run: Run) -> Figures:
        """The figures of a run, from the file if it has them."""
        key = asdict(run)
        for known in self._runs:
            if known.items() >= key.items():
                return known
        made = ground.run(run)
        self._runs.append(made)
        with self._file.open("a") as file:
            file.write(json.dumps(made) + "\n")
        print(json.dumps({**key, **{name: made["held_out"][name] for name in SHOWN}, "kl": made["kl"]}), flush=True)
        return made


def experiment(sizes: Sizes, folder: Path) -> Figures:
    """All runs, in the order of the protocol; `folder` keeps models and runs."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(folder / "runs.jsonl")
    with opened(sizes, folder / "world") as ground:
        found = facts(ground)
        searched = {scale: best_weight(kept, ground, scale) for scale in sizes.scales}
        compared = [
            {"name": name, **kept.run(ground, Run(arm, scale, seed))}
            for seed in (*sizes.seeds, *sizes.more_seeds)
            for scale, (weight, _) in searched.items()
            for name, arm in arms(weight).items()
        ]
    return {
        "world": found,
        "weights": {scale: weight for scale, (weight, _) in searched.items()},
        "searched": [run for _, runs in searched.values() for run in runs],
        "compared": compared,
    }


def arms(weight: float) -> dict[str, str]:
    """The three arms by their names in the results, with the best weight of detail."""
    return {"raw sum": RAW_SUM, "best-weighted sum": weighted(weight), "and": CONJUNCTION}


def best_weight(kept: Kept, ground: Ground, scale: str) -> tuple[float, list[Figures]]:
    """The weight of detail for a scaling, and the runs of all weights.

    It is the one with the largest mean over prompts of the smaller of the two gains, on prompts that are trained on.
    """
    sizes = ground.sizes
    runs = [kept.run(ground, Run(weighted(weight), scale, sizes.search_seed)) for weight in sizes.weights]
    gained = [run["trained_on"]["smaller_gain"] for run in runs]
    return sizes.weights[gained.index(max(gained))], runs


def facts(ground: Ground) -> Figures:
    """What the reward models are like, and whether the advantages of the initial policy can tell the arms apart."""
    before = ground.before
    return {**ground.facts(), "and_against_raw_sum": advantage_correlations(before.log_p, before.calibrated)}
