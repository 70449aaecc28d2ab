"""Can group-relative RL tell the product of probabilities from a sum at all? The correlation of their advantages.

The bundled models score real responses of one policy, 16 to a prompt (AlpacaEval prompts, a 13B policy): half of a
prompt's responses are its references, the other half a group. The files lie beside the project, in `shared/data`.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.learning.measuring import Figures
from benchmarks.learning.objectives import POLICY
from benchmarks.learning.scoring import Array, within_std
from benchmarks.servers import serving

from reward_service.client import Client
from reward_service.demo import FOLDER, MODELS
from reward_service.rewards.groups import TRL, Scaling, grpo

FILE = "rewardbench-bon16-tulu2dpo13b-alpacaeval.jsonl.gz"
SCALES: tuple[Scaling, ...] = ("none", "group")
GROUP = 8


def advantage_correlations(log_p: Array, calibrated: Array) -> Figures:
    """Correlation of the GRPO advantages of the sum of log-probabilities and of the scores, (prompts, responses, 2)."""
    groups = [prompt for prompt in range(len(log_p)) for _ in range(log_p.shape[1])]
    conjunction, total = log_p.sum(axis=-1).ravel(), calibrated.sum(axis=-1).ravel()
    centered = calibrated - calibrated.mean(axis=1, keepdims=True)
    return {
        "advantages": {scale: _correlation(conjunction, total, groups, scale) for scale in SCALES},
        "std_within_prompts": np.round(within_std(calibrated), 3).tolist(),
        "std": np.round(calibrated.reshape(-1, 2).std(axis=0, ddof=1), 3).tolist(),
        "correlation_of_the_terms": round(float(np.corrcoef(centered.reshape(-1, 2).T)[0, 1]), 4),
        "prompts": len(log_p),
        "responses": log_p.shape[1],
    }


def of_demo_models(data: Path, prompts: int) -> Figures:
    """The correlation with the bundled models on real responses, through a live service."""
    rows = list(_shuffled(data / FILE, prompts))
    with serving(_config()) as url, Client(url) as client:
        entries = [{"prompt": prompt, "responses": responses[GROUP:]} for prompt, responses in rows]
        for model in MODELS:
            client.put_baselines(model, POLICY, entries)
        asked = [{"prompt": prompt, "response": one} for prompt, responses in rows for one in responses[:GROUP]]
        terms = [score.terms for score in client.score(asked, "and").scores]
    numbers = np.array([[(term.raw, term.temperature, term.transformed) for term in of] for of in terms], dtype=float)
    raw, temperatures, log_p = np.moveaxis(numbers.reshape(len(rows), GROUP, len(MODELS), 3), -1, 0)
    return {"models": list(MODELS), "responses_of": FILE, **advantage_correlations(log_p, raw / temperatures)}


def _correlation(one: Array, other: Array, groups: list[int], scale: Scaling) -> float:
    rules = replace(TRL, scale=scale)
    return round(float(np.corrcoef(grpo(one, groups, rules), grpo(other, groups, rules))[0, 1]), 4)


def _shuffled(file: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """Prompts with their different responses in random order: the file has them from short to long."""
    random = np.random.default_rng(0)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            responses = [one for one in row["responses"] if one.strip()]
            if len(responses) == 2 * GROUP and count:
                count -= 1
                yield row["instruction"], [responses[index] for index in random.permutation(len(responses))]


def _config() -> str:
    models = "".join(
        f'[[models]]\nname = "{name}"\nsource = "{FOLDER / "models" / name}"\ndtype = "float32"\nmax_tokens = 2048\n'
        f'on_too_long = "truncate_left"\ntemperature = {_temperature(name)}\n'
        for name in MODELS
    )
    terms = "".join(
        f'[[objectives.terms]]\nmodel = "{name}"\ntransform = "log_sigmoid_centered"\n'
        f'baseline = {{ policy = "{POLICY}", quantile = 0.85, on_missing = "error" }}\n'
        for name in MODELS
    )
    return f'[store]\nurl = "memory://"\n{models}[[objectives]]\nname = "and"\naggregate = "and"\n{terms}'


def _temperature(name: str) -> float:
    return float(json.loads((FOLDER / "models" / name / "training_record.json").read_text("utf-8"))["temperature"])
