"""Group-relative rewards in an answer: recomputable from it, of whole groups only, and not there unasked."""

import math
from statistics import fmean, stdev
from typing import Any

import httpx
import pytest

from tests.conftest import Running, Start
from tests.scripted import ScriptedEngine

CONFIG = """
[store]
url = "memory://"
[[models]]
name = "a"
source = "org/a"
[[models]]
name = "b"
source = "org/b"
temperature = 2.0

[[objectives]]
name = "both"
aggregate = "and"
[[objectives.terms]]
model = "a"
transform = "log_sigmoid_centered"
weight = 0.5
baseline = 0.25
[[objectives.terms]]
model = "b"
transform = "log_sigmoid"
[[objectives.terms]]
model = "a"
name = "watched"
transform = "centered"
weight = 0.0
baseline = { policy = "nobody" }

[[objectives]]
name = "either"
aggregate = "or"
[[objectives.terms]]
model = "a"
transform = "log_sigmoid"
[[objectives.terms]]
model = "b"
transform = "log_sigmoid"

[[objectives]]
name = "raw"
aggregate = "weighted_sum"
[[objectives.terms]]
model = "a"
transform = "identity"
"""
RESPONSES = {"p": ["1.5", "-0.5", "nan", "3"], "q": ["0.25", "0.25"], "r": ["-2"], "s": ["1", "2", "4.5"]}
Json = dict[str, Any]


def conversations(responses: dict[str, list[str]]) -> list[Json]:
    """The groups, one response of each in turn, so that no group stands together."""
    longest = max(map(len, responses.values()))
    return [
        {"id": f"{group}{i}", "prompt": group, "response": texts[i], "group": group, "group_size": len(texts)}
        for i in range(longest)
        for group, texts in responses.items()
        if i < len(texts)
    ]


async def asked(running: Running, items: list[Json], query: str = "", **more: Any) -> httpx.Response:
    body = {"objective": "both", "conversations": items, **more}
    return await running.http.post(f"/v1/score{query}", json=body)


def groups(items: list[Json], scores: list[Json]) -> list[list[Json]]:
    """The scores with a reward, by group."""
    names = dict.fromkeys(item["group"] for item in items)
    pairs = list(zip(items, scores, strict=True))
    return [[score for item, score in pairs if item["group"] == name and score["error"] is None] for name in names]


def z(numbers: list[float], rules: Json) -> list[float]:
    """Deviations of a group over its std, as the paper has it."""
    spread = stdev(numbers) if len(numbers) > 1 else 0.0
    return [(number - fmean(numbers)) / (spread + rules["eps"]) for number in numbers]


def recomputed(answer: Json, members: list[list[Json]]) -> dict[str, float]:
    """Every advantage from the rewards, terms and rules of the answer; TRL's rule for a reward that is alone."""
    rules = answer["advantage_rules"]
    found: dict[str, float] = {}
    for group in members:
        rewards = [score["reward"] for score in group]
        if rules["estimator"] == "gdpo":
            weights = {term["name"]: term["weight"] for term in answer["recipe"]["terms"] if term["weight"] > 0}
            columns = [
                [weight * number for number in z([_term(score, name) for score in group], rules)]
                for name, weight in weights.items()
            ]
            numbers = [sum(column) for column in zip(*columns, strict=True)]
        elif rules["estimator"] == "grpo":
            numbers = z(rewards, rules)
        else:
            numbers = [r - (sum(rewards) - r) / (len(rewards) - 1) if len(rewards) > 1 else 0.0 for r in rewards]
        found |= dict(zip([score["id"] for score in group], numbers, strict=True))
    if rules["estimator"] != "gdpo":
        return found
    every = list(found.values())
    divisor = math.sqrt(stdev(every) ** 2 + rules["batch_variance_eps"]) + rules["batch_eps"]
    return {name: (number - fmean(every)) / divisor for name, number in found.items()}


def _term(score: Json, name: str) -> float:
    return next(float(term["transformed"]) for term in score["terms"] if term["name"] == name)


@pytest.mark.parametrize("query", ["", "?references=true"])
@pytest.mark.parametrize("estimator", ["grpo", "rloo", "gdpo"])
async def test_every_advantage_can_be_recomputed_from_the_answer(start: Start, estimator: str, query: str) -> None:
    items = conversations(RESPONSES)
    async with start(CONFIG) as running:
        response = await asked(running, items, query, advantages={"estimator": estimator})
    answer = response.json()
    expected = recomputed(answer, groups(items, answer["scores"]))
    found = {score["id"]: score["advantage"] for score in answer["scores"]}
    assert found.pop("p2") is None
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found["q0"] == pytest.approx(found["q1"], abs=1e-12)


async def test_the_answer_names_the_rules_in_force_and_no_others(start: Start) -> None:
    items = conversations({"p": ["1", "2"]})
    async with start(CONFIG) as running:

        async def rules(**asked_for: Any) -> Any:
            return (await asked(running, items, advantages=asked_for)).json()["advantage_rules"]

        assert await rules(estimator="grpo") == {
            "estimator": "grpo", "ddof": 1, "eps": 1e-4, "scale": "group", "singleton": "zero",
        }  # fmt: skip
        assert await rules(estimator="grpo", rules="verl", scale="none", ddof=0) == {
            "estimator": "grpo", "ddof": 0, "eps": 1e-6, "scale": "none", "singleton": "raw",
        }  # fmt: skip
        assert await rules(estimator="rloo", rules="verl") == {"estimator": "rloo", "singleton": "raw"}
        assert await rules(estimator="gdpo", rules="verl") == {
            "estimator": "gdpo", "ddof": 1, "eps": 1e-6, "singleton": "raw", "batch_eps": 0.0,
            "batch_variance_eps": 1e-8,
        }  # fmt: skip


async def test_the_rules_asked_for_are_followed(start: Start) -> None:
    items = conversations({"p": ["1", "3"], "alone": ["-2"]})
    async with start(CONFIG) as running:

        async def advantages(**asked_for: Any) -> list[float]:
            answer = await asked(running, items, objective="raw", advantages=asked_for)
            return [score["advantage"] for score in answer.json()["scores"]]

        assert await advantages(estimator="grpo", scale="none") == [-1.0, 0.0, 1.0]
        assert await advantages(estimator="grpo", scale="none", singleton="raw") == [-1.0, -2.0, 1.0]
        assert await advantages(estimator="grpo", ddof=0, eps=1.0) == [-0.5, 0.0, 0.5]
        assert await advantages(estimator="rloo", rules="verl") == [-2.0, -2.0, 2.0]


async def test_a_conversation_that_is_not_valid_counts_in_its_group_and_has_no_advantage(start: Start) -> None:
    items = conversations({"p": ["1", "2", "4"]})
    del items[1]["prompt"]
    async with start(CONFIG) as running:
        answer = (await asked(running, items, objective="raw", advantages={"estimator": "rloo"})).json()
    assert [score["advantage"] for score in answer["scores"]] == [-3.0, None, 3.0]


async def test_a_failed_watched_term_takes_no_advantage_away(start: Start) -> None:
    async with start(CONFIG) as running:
        answer = (await asked(running, conversations({"p": ["1", "2"]}), advantages={"estimator": "gdpo"})).json()
    assert [score["terms"][2]["transformed"] for score in answer["scores"]] == [None, None]
    assert [score["advantage"] for score in answer["scores"]] == pytest.approx([-0.70704, 0.70704], abs=1e-4)


WRONG: dict[str, tuple[Json, Json, str]] = {
    "too few": ({}, {"group_size": 4}, "group 'p': 3 conversations in the request, and group_size is 4"),
    "too many": ({}, {"group_size": 2}, "group 'p': 3 conversations in the request, and group_size is 2"),
    "no size": ({}, {"group_size": 0}, "group 'p': 3 conversations in the request, and group_size is 0"),
    "two sizes": ({"group_size": 2}, {"group_size": 3}, "group 'p': group_size is 2 and 3; all conversations of a"),
    "a size left out": ({"group_size": None}, {}, "group 'p': group_size is none and 3"),
    "no group": ({"group": None}, {}, "conversations[0]: group_size 3 without a `group`"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("more", [{}, {"advantages": {"estimator": "grpo"}}], ids=["size alone", "advantages"])
async def test_groups_that_are_not_whole_are_refused_before_any_scoring(start: Start, name: str, more: Json) -> None:
    first, all_of_them, told = WRONG[name]
    items = [item | all_of_them for item in conversations({"p": ["1", "2", "3"]})]
    items[0] |= first
    async with start(CONFIG) as running:
        response = await asked(running, items, **more)
        assert not any(engine.calls for engine in running.engines.values())
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert told in response.json()["detail"]


async def test_a_group_with_a_long_name_is_told_in_few_words(start: Start) -> None:
    items = [{"prompt": "p", "response": "1", "group": "g" * 100_000, "group_size": 2}]
    async with start(CONFIG) as running:
        response = await asked(running, items)
    assert response.status_code == 422
    assert "ggg: 1 conversations in the request, and group_size is 2" in response.json()["detail"]
    assert len(response.content) < 1000


@pytest.mark.parametrize("field", ["group", "group_size"])
async def test_advantages_need_the_group_of_every_conversation(start: Start, field: str) -> None:
    items = conversations({"p": ["1", "2"], "q": ["1"]})
    del items[1][field]
    async with start(CONFIG) as running:
        response = await asked(running, items, advantages={"estimator": "grpo"})
        assert not any(engine.calls for engine in running.engines.values())
    assert response.status_code == 422
    assert f"conversations[1]: no valid {field}; for advantages all need both" in response.json()["detail"]


@pytest.mark.parametrize(
    ("advantages", "told"),
    [
        ({"estimator": "rlo"}, "advantages.estimator: 'rlo' is not valid; valid: 'grpo', 'rloo' or 'gdpo'"),
        ({}, "advantages.estimator: required, but not given"),
        ({"estimator": "grpo", "rules": "TRL"}, "advantages.rules: 'TRL' is not valid; valid: 'trl' or 'verl'"),
        ({"estimator": "rloo", "eps": 0.1}, "advantages: rloo has no rule eps; valid: singleton"),
        ({"estimator": "grpo", "batch_eps": 0.1}, "advantages: grpo has no rule batch_eps; valid: ddof, eps, scale,"),
        ({"estimator": "gdpo", "batch_eps": 0.0}, "advantages: batch_eps = 0.0, batch_variance_eps = 0.0; valid:"),
        ({"estimator": "grpo", "eps": 0.0}, "advantages.eps: 0.0 is not valid: input should be greater than 0"),
        ({"estimator": "grpo", "epsilon": 0.1}, "advantages.epsilon: unknown field 'epsilon'"),
    ],
)
async def test_rules_that_are_none_are_refused(start: Start, advantages: Json, told: str) -> None:
    async with start(CONFIG) as running:
        response = await asked(running, conversations({"p": ["1", "2"]}), advantages=advantages)
    assert response.status_code == 422
    assert told in response.json()["detail"]


async def test_gdpo_is_refused_where_the_terms_are_not_summed(start: Start) -> None:
    items = conversations({"p": ["1", "2"]})
    async with start(CONFIG) as running:
        response = await asked(running, items, objective="either", advantages={"estimator": "gdpo"})
        assert not any(engine.calls for engine in running.engines.values())
        other = await asked(running, items, objective="either", advantages={"estimator": "grpo"})
    assert response.status_code == 422
    assert "advantages.estimator: gdpo sums the terms" in response.json()["detail"]
    assert "'or'; valid for gdpo: and, weighted_sum, mean" in response.json()["detail"]
    assert other.status_code == 200


async def test_rewards_too_large_to_compare_are_an_error_and_no_number(start: Start) -> None:
    items = conversations({"p": ["1e200", "-1e200"]})
    async with start(CONFIG) as running:
        response = await asked(running, items, objective="raw", advantages={"estimator": "grpo"})
    assert (response.status_code, response.json()["code"]) == (503, "not_finite")


@pytest.mark.parametrize("query", ["", "?references=true"])
async def test_an_answer_without_them_says_nothing_of_them(start: Start, query: str) -> None:
    items = [{"prompt": "p", "response": "1", "group": "g"}, {"prompt": "p", "response": "nan"}, {"prompt": "p"}]
    async with start(CONFIG, a=ScriptedEngine("a"), b=ScriptedEngine("b")) as running:
        answer = (await asked(running, items, query)).json()
    assert [set(score) for score in answer["scores"]] == [{"id", "reward", "terms", "error"}] * 3
    assert set(answer) == {
        "objective", "objective_hash", "recipe", "scores", "models", "baselines", "usage", "timings_ms",
    }  # fmt: skip
    assert set(answer["scores"][0]["terms"][2]) == {
        "name", "model", "label", "raw", "raw_source", "std", "temperature", "baseline", "baseline_source", "reference",
        "transformed", "weight", "error",
    }  # fmt: skip
