"""Means over seeds, and how sure they are."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from benchmarks.learning.measuring import Figures
from benchmarks.learning.world import ATTRIBUTES

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % point of Student's t, by the number of seeds."""
NUMBERS = ("smaller_gain", "share_worse", "p_both", "true_share_worse")
PAIRS = ("gain", "true_gain", "spread", "gain_std_over_prompts")
BASIS = "and"


def summarized(found: Figures, seeds: Sequence[int]) -> Figures:
    """By scaling and arm the means over seeds of the figures of held-out prompts, and `and` less each other arm."""
    runs = [run for run in found["compared"] if run["seed"] in seeds]
    arms = {scale: _arms([run for run in runs if run["scale"] == scale]) for scale in found["weights"]}
    return {
        scale: {"arms": {name: _mean(of) for name, of in by_name.items()}, "and_less": _differences(by_name)}
        for scale, by_name in arms.items()
    }


def numbers(run: Figures) -> dict[str, float]:
    """The single numbers of a run on held-out prompts."""
    of = run["held_out"]
    named = {f"{name}.{attribute}": of[name][attribute] for name in PAIRS for attribute in ATTRIBUTES}
    return {**named, **{name: of[name] for name in NUMBERS}, "kl": run["kl"], **_logged(run["log"])}


def _logged(log: Figures) -> dict[str, float]:
    """The spread of the reward that was trained on, first and last tenth, and what was cut in the last tenth."""
    tenth = max(1, len(log["reward_std"]) // 10)
    return {
        "reward_std_first": float(np.mean(log["reward_std"][:tenth])),
        "reward_std_last": float(np.mean(log["reward_std"][-tenth:])),
        "cut_last": float(np.mean(log["completions/clipped_ratio"][-tenth:])),
    }


def _arms(runs: Sequence[Figures]) -> dict[str, list[Figures]]:
    """The runs of each arm, in the order of the seeds."""
    by_name = sorted(runs, key=lambda run: (str(run["name"]), int(run["seed"])))
    return {name: list(of) for name, of in groupby(by_name, key=lambda run: str(run["name"]))}


def _mean(runs: list[Figures]) -> Figures:
    every = [numbers(run) for run in runs]
    return {name: _rounded(np.mean([one[name] for one in every])) for name in every[0]}


def _differences(arms: dict[str, list[Figures]]) -> Figures:
    """By other arm: the mean difference of each number, seed by seed, and half the width of its 95 % interval."""
    basis = [numbers(run) for run in arms[BASIS]]
    found: Figures = {}
    for name, runs in arms.items():
        if name != BASIS:
            pairs = list(zip(basis, (numbers(run) for run in runs), strict=True))
            found[name] = {key: _interval([ours[key] - theirs[key] for ours, theirs in pairs]) for key in NUMBERS}
    return found


def _interval(differences: list[float]) -> Figures:
    count = len(differences)
    half = T_95[count] * np.std(differences, ddof=1) / np.sqrt(count) if count in T_95 else None
    return {
        "mean": _rounded(np.mean(differences)),
        "half_width_95": None if half is None else _rounded(half),
        "by_seed": [_rounded(one) for one in differences],
    }


def _rounded(number: Any) -> float:
    return round(float(number), 4)
