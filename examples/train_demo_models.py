"""Reproduce the two demo reward models, and measure their recipe over several seeds.

    python examples/train_demo_models.py --data ../shared/data
    python examples/train_demo_models.py --data ../shared/data --seeds 0 1 2 --results accuracies.json

The models of the first seed are saved with their cards. Held-out pairs (sha256 of the first human turn modulo 5 is 0)
are scored once, at the very end, by the last step's weights. A seed takes one core; two run at a time.
"""

import argparse
import json
import multiprocessing
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from reward_service.training.margins import Margins, accuracy, fit_temperature, wilson_interval
from reward_service.training.preferences import Pair, read_pairs, split
from reward_service.training.recipe import (
    Recipe,
    Start,
    held_in_texts,
    out_of_fold_margins,
    pair_margins,
    save,
    train_reward_model,
    warm_start,
)

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "service" / "reward_service" / "demo" / "models"
CARD = Path(__file__).with_name("demo_model_card.md")
KINDS = {"helpful": "how helpful a response is", "harmless": "how harmless a response is"}
OTHER = {"helpful": "harmless", "harmless": "helpful"}
FOLDS = 2
WORKERS = 2

Pairs = dict[str, list[Pair]]
Figures = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    seeds: list[int] = arguments.seeds
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(WORKERS, len(seeds)), mp_context=spawn) as workers:
        folders = [arguments.out, *[None] * (len(seeds) - 1)]
        runs = list(workers.map(partial(train_seed, arguments.data), seeds, folders))
    if arguments.results:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(json.dumps(report(seeds, runs), indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the *-base-test.jsonl.gz files")
    parser.add_argument("--out", type=Path, default=MODELS, help="where helpful/ and harmless/ are written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the models of the first are saved")
    parser.add_argument("--results", type=Path, help="JSON file for the accuracies of all seeds")
    return parser.parse_args()


def train_seed(data: Path, seed: int, out: Path | None) -> Figures:
    """Both models of one seed: held-out figures by the attribute trained on, then by the attribute of the pairs."""
    torch.set_num_threads(1)
    started = time.monotonic()
    held_in, held_out = read_split(data)
    start = warm_start(held_in_texts(held_in), Recipe(), seed)
    trained_on = {}
    for name in OTHER:
        model = train_reward_model(start, held_in[name], Recipe(), seed)
        margins = {pairs: pair_margins(model, start.tokenizer, held_out[pairs]) for pairs in OTHER}
        trained_on[name] = {pairs: figures(margins[pairs]) for pairs in OTHER}
        print(f"seed {seed}, {name}: {trained_on[name]}, {time.monotonic() - started:.0f} s", flush=True)
        if out:
            save(model, start.tokenizer, out / name)
            facts = {"seed": seed, "parameters": model.num_parameters(), "held_out": trained_on[name][name]}
            facts["held_out_other_attribute"] = trained_on[name][OTHER[name]]
            document(name, facts, calibration(start, held_in[name], seed), out / name)
    return {"seed": seed, "wall_s": round(time.monotonic() - started), "trained_on": trained_on}


def calibration(start: Start, pairs: list[Pair], seed: int) -> Figures:
    """Temperature of the held-in pairs, each scored by a model that did not see its prompt's preference."""
    margins = out_of_fold_margins(start, pairs, Recipe(), seed, FOLDS)
    return {"temperature": fit_temperature(margins), "held_in_out_of_fold": {"folds": FOLDS, **figures(margins)}}


def document(name: str, facts: Figures, calibrated: Figures, folder: Path) -> None:
    """Write the training record and the model card."""
    record = {"attribute": name, "data": f"{name}-base-test", **facts, **calibrated, **provenance()}
    (folder / "training_record.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(card(name, record))


def report(seeds: list[int], runs: list[Figures]) -> Figures:
    """The committed results: mean over seeds first, then each seed."""
    mean = {trained: {pairs: mean_figures(runs, trained, pairs) for pairs in OTHER} for trained in OTHER}
    return {
        "what": "held-out accuracy of the demo recipe by attribute trained on, then by attribute of the pairs",
        "interval": "Wilson 95 % over pairs; for the mean of seeds too, since the seeds share the pairs",
        "command": "python examples/train_demo_models.py --data ../shared/data "
        f"--seeds {' '.join(map(str, seeds))} --results benchmarks/results/demo_models.json",
        "mean_over_seeds": mean,
        "per_seed": runs,
        **provenance(),
    }


def mean_figures(runs: list[Figures], trained: str, pairs: str) -> Figures:
    of_seeds = [run["trained_on"][trained][pairs] for run in runs]
    return shares(float(np.mean([seed["accuracy"] for seed in of_seeds])), of_seeds[0]["pairs"])


def figures(margins: Margins) -> Figures:
    return shares(accuracy(margins), len(margins))


def shares(share: float, count: int) -> Figures:
    low, high = wilson_interval(share, count)
    return {"accuracy": round(share, 4), "interval_95": [round(low, 4), round(high, 4)], "pairs": count}


def read_split(data: Path) -> tuple[Pairs, Pairs]:
    """(held in, held out) pairs by attribute."""
    sides = {name: split(read_pairs(data / f"{name}-base-test.jsonl.gz")) for name in OTHER}
    return {name: side[0] for name, side in sides.items()}, {name: side[1] for name, side in sides.items()}


def provenance() -> Figures:
    return {
        "recipe": asdict(Recipe()),
        "hardware": f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), one thread a seed",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }


def card(name: str, record: Figures) -> str:
    """The model card in Markdown."""
    recipe = record["recipe"]
    return CARD.read_text().format(
        name=name,
        kind=KINDS[name],
        million_parameters=record["parameters"] / 1e6,
        record=record,
        size=recipe["architecture"],
        vocab_size=recipe["vocab_size"],
        warm_up=recipe["warm_up"],
        preference=recipe["bradley_terry"],
        held_out=row(record["held_out"]),
        other=row(record["held_out_other_attribute"]),
        folds=row(record["held_in_out_of_fold"]),
    )


def row(shown: Figures) -> str:
    low, high = shown["interval_95"]
    return f"{shown['accuracy']:.3f} | {low:.3f} to {high:.3f} | {shown['pairs']}"


if __name__ == "__main__":
    main()
