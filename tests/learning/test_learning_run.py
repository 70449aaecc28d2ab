"""The learning run of the docs in small, and what is committed of the full one."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.learning.__main__ import measured
from benchmarks.learning.correlation import advantage_correlations
from benchmarks.learning.measuring import gains, share_worse
from benchmarks.learning.plotting import drawn
from benchmarks.learning.sizes import FULL, SMOKE
from benchmarks.learning.summary import summarized
from benchmarks.learning.world import NATS_PER_FACT, NATS_PER_WORD, World

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "learning_run.json"
FIGURE = ROOT / "docs" / "images" / "learning-run.svg"
ARMS = ["and", "best-weighted sum", "raw sum"]


def numbers(document: Any) -> list[float]:
    """All numbers of a JSON document."""
    if isinstance(document, dict):
        return [number for value in document.values() for number in numbers(value)]
    if isinstance(document, list):
        return [number for value in document for number in numbers(value)]
    return [document] if isinstance(document, int | float) else []


def test_all_arms_train_against_the_live_service_and_the_report_is_complete(tmp_path: Path) -> None:
    result = json.loads(json.dumps(measured(SMOKE, tmp_path, None)))
    assert sorted(result["summary"]["group"]["arms"]) == ARMS
    assert [run["arm"] for run in result["searched"]] == [f"weighted-{weight:g}" for weight in SMOKE.weights]
    assert result["weights"]["group"] in SMOKE.weights
    for run in [*result["searched"], *result["compared"]]:
        assert len(run["log"]["reward_std"]) == SMOKE.steps
        assert len(run["held_out"]["prompts"]["detail"]) == len(run["trained_on"]["prompts"]["detail"]) == 9
        assert run["held_out"]["gain"]["brevity"] != 0.0
    assert all(map(math.isfinite, numbers(result)))
    ElementTree.fromstring(drawn(result))
    kept = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len({json.dumps([run["arm"], run["seed"]]) for run in map(json.loads, kept)}) == len(kept)


def test_the_committed_summary_and_figure_are_those_of_the_committed_runs() -> None:
    result = json.loads(RESULTS.read_text())
    assert summarized(result, FULL.seeds) == result["summary"]
    assert summarized(result, FULL.more_seeds) == result["confirmation"]
    assert drawn(result) == FIGURE.read_text()
    seeds: dict[tuple[str, str], set[int]] = {(run["scale"], run["name"]): set() for run in result["compared"]}
    for run in result["compared"]:
        seeds[run["scale"], run["name"]].add(run["seed"])
    assert seeds == {(scale, arm): {*FULL.seeds, *FULL.more_seeds} for scale in FULL.scales for arm in ARMS}
    assert min(result["world"]["std_within_prompts"].values()) >= 1.5


def test_the_table_of_the_docs_has_the_committed_numbers() -> None:
    result = json.loads(RESULTS.read_text())
    page = (ROOT / "docs" / "learning-run.md").read_text()
    for part, seeds in (("summary", "0 to 2"), ("confirmation", "3 to 7")):
        for scale, found in result[part].items():
            for arm, of in found["arms"].items():
                shown = f"{of['smaller_gain']:.2f} | {100 * of['share_worse']:.0f} %"
                rows = [line for line in page.splitlines() if line.startswith(f"| {scale} | {seeds} | ")]
                assert any(arm in row and shown in row for row in rows), (part, scale, arm)


def test_facts_count_once_and_only_of_the_own_topic() -> None:
    world = World(0)
    mine, other = world.train[0], next(one for one in world.train if one.topic != world.train[0].topic)
    facts = world.facts[mine.topic]
    assert world.detail(mine, f"it is {facts[0]} {facts[1]} {facts[0]} .") == 2 * NATS_PER_FACT
    alien = [fact for fact in world.facts[other.topic] if not any(fact in own or own in fact for own in facts)]
    assert world.detail(mine, f"it is {alien[0]} .") == 0.0


def test_punctuation_is_free() -> None:
    world = World(0)
    assert world.brevity(world.train[0], "well , it is red .") == -4 * NATS_PER_WORD


def test_held_out_topics_are_never_trained_on_and_cost_as_much() -> None:
    world = World(3)
    trained, held_out = ({prompt.topic for prompt in of} for of in (world.train, world.held_out))
    assert not trained & held_out
    lengths = [len(world.facts[topic][0].split()) for topic in held_out]
    assert sorted(set(lengths)) == [1, 2, 3]


def test_labels_follow_the_true_attributes() -> None:
    world = World(0)
    prompts = {prompt.text: prompt for prompt in world.prompts}
    for attribute, true in (("detail", world.detail), ("brevity", world.brevity)):
        pairs = world.pairs(attribute, 2000, seed=0)
        asked = [prompts[pair.first_turn] for pair in pairs]
        margins = np.array([true(q, p.chosen) - true(q, p.rejected) for q, p in zip(asked, pairs, strict=True)])
        clear = np.abs(margins) > 1.0
        expected = np.mean(1 / (1 + np.exp(-np.abs(margins[clear]))))
        assert np.mean(margins[clear] > 0) == pytest.approx(expected, abs=0.03)


def test_a_prompt_is_worse_when_one_of_its_attributes_fell() -> None:
    before = np.zeros((3, 2, 2))
    after = np.array([[[1.0, 1.0], [1.0, 3.0]], [[5.0, -1.0], [5.0, -3.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert gains(before, after).tolist() == [[1.0, 2.0], [5.0, -2.0], [0.0, 0.0]]
    assert share_worse(gains(before, after)) == pytest.approx(1 / 3)


def test_far_below_the_baseline_the_advantages_of_and_are_those_of_the_sum() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 8, 2))
    below = advantage_correlations(-np.logaddexp(0.0, 50.0 - scores), scores)
    near = advantage_correlations(-np.logaddexp(0.0, -4.0 * scores), 4.0 * scores)
    assert below["advantages"] == {"none": 1.0, "group": 1.0}
    assert near["advantages"]["none"] < 0.95
