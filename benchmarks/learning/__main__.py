"""Does the product of probabilities train better than a sum of scores, where two reward models conflict?

    python -m benchmarks.learning [--data ../shared/data] [--out benchmarks/results/learning_run.json]

TRL's GRPOTrainer on a policy of 0.4 million parameters against the live service; docs/learning-run.md has the protocol.
It takes about half an hour of one core, and goes on where it was stopped.
"""

import argparse
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from benchmarks.learning.correlation import of_demo_models
from benchmarks.learning.experiment import experiment
from benchmarks.learning.measuring import Figures
from benchmarks.learning.plotting import drawn
from benchmarks.learning.sizes import FULL, SMOKE, Sizes
from benchmarks.learning.summary import summarized
from benchmarks.machine import commit, processor

ROOT = Path(__file__).parents[2]
COMMAND = (
    "python -m benchmarks.learning --data ../shared/data --out benchmarks/results/learning_run.json "
    "--plot docs/images/learning-run.svg"
)
PROMPTS = 100
RUNS = ("searched", "compared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".reward-service" / "learning", help="models and runs")
    parser.add_argument("--data", type=Path, help="folder of the real responses; without it, no demo models")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--plot", type=Path, help="SVG file")
    parser.add_argument("--smoke", action="store_true", help="all of it in half a minute, to see that it works")
    arguments = parser.parse_args()
    result = measured(SMOKE if arguments.smoke else FULL, arguments.folder, arguments.data)
    if arguments.out:
        arguments.out.write_text(written(result))
    if arguments.plot:
        arguments.plot.write_text(drawn(result))
    print(json.dumps(result["summary"], indent=2))


def measured(sizes: Sizes, folder: Path, data: Path | None) -> Figures:
    """The results with where they come from."""
    found = experiment(sizes, folder)
    return {
        "what": "gains of two conflicting calibrated scores under GRPO, by arm and by scaling of the advantages",
        "command": COMMAND,
        "sizes": asdict(sizes),
        "demo_models": demo_models(folder / "demo_models.json", data) if data else None,
        "summary": summarized(found, sizes.seeds),
        "confirmation": summarized(found, sizes.more_seeds) if sizes.more_seeds else None,
        **found,
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "trl", "accelerate", "datasets")},
        },
    }


def written(result: Figures) -> str:
    """The results as JSON, a run on each line."""
    runs = {name: ",\n".join(map(json.dumps, result[name])) for name in RUNS}
    text = json.dumps({name: name if name in RUNS else value for name, value in result.items()}, indent=1)
    for name, lines in runs.items():
        text = text.replace(f'"{name}": "{name}"', f'"{name}": [\n{lines}\n ]')
    return text + "\n"


def demo_models(kept: Path, data: Path) -> Figures:
    """The correlation of the bundled models' advantages, from the file if it is there."""
    if not kept.exists():
        kept.write_text(json.dumps(of_demo_models(data, PROMPTS)))
    figures: Figures = json.loads(kept.read_text())
    return figures


if __name__ == "__main__":
    main()
