"""Builds the demo's global snapshots: both bundled models score both responses of 400 held-in human preference pairs.

Run it after `train_demo_models.py`, since a snapshot belongs to the weights that scored it:

    python examples/build_demo_snapshots.py --data ../shared/data
"""

import argparse
import asyncio
import json
from pathlib import Path

from reward_service.demo import FOLDER, MODELS, POLICY, demo_config
from reward_service.schemas import BuildSnapshot, PutBaselines
from reward_service.service import running
from reward_service.training.preferences import Pair, read_pairs, split

FILES = ("helpful-base-test.jsonl.gz", "harmless-base-test.jsonl.gz")
PAIRS_PER_FILE = 200


def held_in_pairs(data: Path) -> list[Pair]:
    """The first held-in pairs of both files."""
    return [pair for file in FILES for pair in split(read_pairs(data / file))[0][:PAIRS_PER_FILE]]


async def build(data: Path) -> None:
    """Score the references, pool them and write one document per model."""
    entries = [{"prompt": list(p.prompt), "responses": [p.chosen, p.rejected]} for p in held_in_pairs(data)]
    async with running(demo_config(port=0)) as service:
        for name in MODELS:
            request = {"model": name, "policy": POLICY, "idempotency_key": "demo", "entries": entries}
            await service.references.put(PutBaselines.model_validate(request))
            await service.references.build_snapshot(BuildSnapshot(model=name, policy=POLICY, min_references=2))
            document = await service.baselines.snapshot_document(
                fingerprint=service.catalog[name].fingerprint, policy=POLICY
            )
            file = FOLDER / "models" / name / "global_snapshot.json"
            file.write_text(json.dumps(document) + "\n", encoding="utf-8")
            print(f"{file.name} of {name}: {document['prompts']} prompts, {len(document['rewards'])} references")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the preference files")
    asyncio.run(build(parser.parse_args().data))
