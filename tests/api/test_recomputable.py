"""Every number of an answer can be recomputed from the answer: all transforms, aggregations and baseline sources."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_service.rewards.aggregation import AGGREGATIONS
from reward_service.rewards.scales import Scale
from reward_service.rewards.transforms import TRANSFORMS, Needs
from tests.conftest import Running, Start
from tests.scripted import ScriptedEngine

SCRIPT = Path(__file__).parents[1] / "recompute.py"
SOURCES = {
    "prompt": '{ policy = "sft" }',
    "global": '{ policy = "sft", on_missing = "global" }',
    "response": '{ response = "0.3 -0.2" }',
    "constant": "0.7",
    "request": '{ policy = "sft" }',
}
MODELS = """
[[models]]
name = "a"
source = "org/a"
temperature = 1.7
[[models]]
name = "b"
source = "org/b"
"""


def term(model: str, transform: str, source: str, extra: str = "", name: str = "") -> str:
    needs = TRANSFORMS[transform].needs
    baseline = "" if needs is Needs.NOTHING else f"baseline = {SOURCES[source]}\n"
    named = f'name = "{name}"\n' if name else ""
    return f'[[objectives.terms]]\nmodel = "{model}"\n{named}transform = "{transform}"\n{baseline}{extra}\n'


def cases() -> dict[str, tuple[str, str]]:
    """Objective tables by name, and the source that their baselines must name."""
    made: dict[str, tuple[str, str]] = {}
    for transform, source, negate in itertools.product(TRANSFORMS, SOURCES, (False, True)):
        needs = TRANSFORMS[transform].needs
        if needs is Needs.NOTHING and source != "prompt":
            continue
        if needs is Needs.REFERENCES and source == "constant":
            continue
        if transform == "standardize" and source == "response":
            continue
        extra = 'label = "second"\nnegate = true' if negate else ""
        name = f"{transform}.{source}.{negate}".lower()
        made[name] = ('aggregate = "weighted_sum"\n' + term("a", transform, source, extra), source)
    fitting = {
        Scale.LOG_PROBABILITY: ("log_sigmoid_centered", "log_sigmoid", "log_win_rate"),
        Scale.PROBABILITY: ("sigmoid_centered", "par", "win_rate"),
        Scale.REAL: ("identity", "centered", "standardize"),
    }
    for aggregate, how in AGGREGATIONS.items():
        for scale in sorted(how.scales):
            weights = ("1.0", "1.0", "1.0") if how.unit_weights else ("0.5", "2.0", "1.0")
            terms = [
                term("ab"[i % 2], transform, "prompt", f"weight = {weight}", f"t{i}")
                for i, (transform, weight) in enumerate(zip(fitting[scale], weights, strict=True))
            ]
            terms[0] = terms[0] + (
                "clip = [-2.5, -0.01]\n" if scale is Scale.LOG_PROBABILITY else "clip = [0.1, 0.8]\n"
            )
            watched = term(
                "a", "identity" if scale is Scale.REAL else fitting[scale][0], "prompt", "weight = 0.0", "watched"
            )
            k = "k = 2\n" if how.needs_k else ""
            made[f"{aggregate}.{scale}"] = (f'aggregate = "{aggregate}"\n{k}' + "".join(terms) + watched, "prompt")
    return made


CASES = cases()


async def seed_baselines(running: Running) -> None:
    """Sixty-four references for the prompts that are scored, nine for 120 others, and the global snapshot."""
    rng = np.random.default_rng(7)
    for model, labels in (("a", 2), ("b", 1)):
        own = [{"prompt": f"known {i}", "rewards": rows(rng, 64, labels)} for i in range(3)]
        others = [{"prompt": f"other {i}", "rewards": rows(rng, 9, labels)} for i in range(120)]
        for entries in (own, others):
            body = {"model": model, "policy": "sft", "entries": entries}
            assert (await running.http.put("/v1/baselines", json=body)).status_code == 200
        body = {"model": model, "policy": "sft"}
        assert (await running.http.post("/v1/baselines/global", json=body)).status_code == 200


def rows(rng: np.random.Generator, count: int, labels: int) -> list[Any]:
    drawn = rng.normal(0.3, 1.5, (count, labels)).round(2)
    return list((drawn if labels > 1 else drawn[:, 0]).tolist())


def conversations(source: str) -> list[dict[str, Any]]:
    prompts = [f"{'unknown' if source == 'global' else 'known'} {i}" for i in range(3)]
    raw = ["-3.25 4.5", "0.3 0.3", "2.0 -1.5", "11.0 -12.0", "1e2 -1e2"]
    made = [{"prompt": p, "response": r} for p, r in itertools.product(prompts, raw)]
    if source == "request":
        given: list[dict[str, Any]] = [
            {"rewards": [0.1, 0.7, 1.9, -2.0, 0.3]},
            {"responses": ["0.5 1", "1.5 2", "-1 0"]},
        ]
        return [{**one, "references": {"a": given[i % 2]}} for i, one in enumerate(made)]
    return made


@pytest.fixture(scope="module")
def config() -> str:
    objectives = "".join(f'[[objectives]]\nname = "{name}"\n{text}\n' for name, (text, _) in CASES.items())
    return '[store]\nurl = "memory://"\n' + MODELS + objectives


async def test_every_number_equals_that_of_a_script_without_our_code(config: str, start: Start) -> None:
    answers: dict[str, Any] = {}
    async with start(
        config, a=ScriptedEngine("a", ("first", "second"), variance=0.04), b=ScriptedEngine("b")
    ) as running:
        await seed_baselines(running)
        for name, (_, source) in CASES.items():
            body = {"objective": name, "conversations": conversations(source)}
            response = await running.http.post("/v1/score?references=true", json=body)
            assert response.status_code == 200, response.text
            answers[name] = response.json()
            assert [s["error"] for s in answers[name]["scores"]] == [None] * 15, name
            used = {t["baseline_source"] for s in answers[name]["scores"] for t in s["terms"]}
            assert used <= {source, None}, name
    worst = {
        name: float(
            subprocess.run(
                [sys.executable, str(SCRIPT)], input=json.dumps(answer), capture_output=True, text=True, check=True
            ).stdout
        )
        for name, answer in answers.items()
    }
    assert {name: found for name, found in worst.items() if not found < 1e-9} == {}
