"""OpenRLHF's clients of all generations, and what its `scores` and `extra_logs` are."""

import json
import math
from typing import Any

import httpx
import pytest

from tests.conftest import Start
from tests.dialects.conftest import Reference
from tests.dialects.conversations import ORDINARY, Sample
from tests.dialects.trainers import OPENRLHF

QUERIES = [one.rendered for one in ORDINARY]
PROMPTS = [one.rendered_prompt for one in ORDINARY]
GENERATIONS: dict[str, dict[str, Any]] = {
    "0.2, query only": {"query": QUERIES},
    "0.6, with prompts": {"query": QUERIES, "prompts": PROMPTS},
    "0.7 and later, with labels": {"query": QUERIES, "prompts": PROMPTS, "labels": ["a", None, "c"]},
    "a fork that says more": {"query": QUERIES, "prompts": PROMPTS, "labels": [""] * 3, "templates": "chatml"},
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_of_clients_gets_the_same_rewards(
    generation: str, http: httpx.Client, reference: Reference
) -> None:
    answer = http.post(OPENRLHF.url("both"), json=GENERATIONS[generation]).json()
    assert answer["rewards"] == pytest.approx(reference("both", ORDINARY), abs=1e-9)


def test_a_shard_without_queries_is_answered_with_the_keys_of_the_others(http: httpx.Client) -> None:
    empty = http.post(OPENRLHF.url("both"), json={"query": [], "prompts": [], "labels": []})
    assert empty.status_code == 200
    full = OPENRLHF.post(http, "both", ORDINARY).json()
    assert empty.json() == {"rewards": [], "scores": [], "extra_logs": {name: [] for name in full["extra_logs"]}}


def test_the_logs_have_each_term_raw_and_transformed(http: httpx.Client) -> None:
    logs = OPENRLHF.post(http, "both", ORDINARY).json()["extra_logs"]
    asked = {"objective": "both", "conversations": [one.conversation for one in ORDINARY]}
    terms = [score["terms"] for score in http.post("/v1/score", json=asked).json()["scores"]]
    assert logs == {
        f"{name}/{kind}": pytest.approx([of_one[i][kind] for of_one in terms], abs=1e-9)
        for i, name in enumerate(("helpful", "harmless"))
        for kind in ("raw", "transformed")
    }


def test_a_plain_prompt_is_the_users_and_the_end_of_the_text_is_not_scored(
    http: httpx.Client, reference: Reference
) -> None:
    said = Sample("About five metres.")
    prompt = said.prompt[0]["content"]
    for query, sample in ((f"{prompt}About five metres.</s>", said),):
        answer = http.post(OPENRLHF.url("both"), json={"query": [query], "prompts": [prompt]})
        assert answer.json()["rewards"] == pytest.approx(reference("both", [sample]), abs=1e-9)


def test_messages_takes_prompt_and_response_as_they_are(http: httpx.Client) -> None:
    query = {"query": ["How tall?Very.</s>"], "prompts": ["How tall?"]}
    answer = http.post(f"{OPENRLHF.url('both')}?input=messages", json=query)
    asked = {"objective": "both", "conversations": [{"prompt": "How tall?", "response": "Very.</s>"}]}
    expected = http.post("/v1/score", json=asked).json()["scores"][0]["reward"]
    assert answer.json()["rewards"] == pytest.approx([expected], abs=1e-9)
    other = http.post(f"{OPENRLHF.url('both')}?input=messages", json={"query": ["Very."], "prompts": ["How tall?"]})
    assert (other.status_code, other.json()["code"]) == (422, "invalid_request")
    alone = http.post(f"{OPENRLHF.url('both')}?input=messages", json={"query": ["Very."]})
    assert "query[0]: input=messages needs the prompt apart" in alone.json()["detail"]


def test_raw_scores_the_text_as_it_is(http: httpx.Client) -> None:
    answer = OPENRLHF.post(http, "both", ORDINARY[:1], "?input=raw")
    asked = {"objective": "both", "conversations": [{"text": QUERIES[0]}]}
    expected = http.post("/v1/score", json=asked).json()["scores"][0]["reward"]
    assert answer.json()["rewards"] == pytest.approx([expected], abs=1e-9)


def test_one_query_that_fails_is_named(http: httpx.Client) -> None:
    answer = OPENRLHF.post(http, "broken", [*ORDINARY, Sample("~")])
    assert (answer.status_code, answer.json()["code"]) == (503, "not_finite")
    assert answer.json()["detail"].startswith("query[3]: ")
    asked = {"query": [*QUERIES, "cut"], "prompts": [*PROMPTS, "prompt"]}
    assert http.post(OPENRLHF.url("both"), json=asked).json()["detail"].startswith("query[3]: ")


def test_a_prompt_for_each_query_or_none(http: httpx.Client) -> None:
    answer = http.post(OPENRLHF.url("both"), json={"query": QUERIES, "prompts": PROMPTS[:1]})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "3 in query and 1 in prompts; give one prompt for each",
    )


OBJECTIVES: dict[str, tuple[str, str, float, list[float]]] = {
    "a log-probability": ('"and"', "log_sigmoid", 1.0, [math.log(0.75), 0.75]),
    "a probability": ('"geometric"', "sigmoid_centered", 1.0, [0.75, 0.75]),
    "a weighted probability": ('"weighted_sum"', "sigmoid_centered", 0.5, [0.375, 0.375]),
    "more than a probability": ('"weighted_sum"', "sigmoid_centered", 2.0, [1.5, 1.5]),
    "a real number": ('"mean"', "identity", 1.0, [math.log(3), math.log(3)]),
}


@pytest.mark.parametrize("kind", OBJECTIVES)
async def test_scores_are_probabilities_where_the_reward_is_one(kind: str, start: Start) -> None:
    aggregate, transform, weight, expected = OBJECTIVES[kind]
    baseline = "baseline = 0.0\n" if transform == "sigmoid_centered" else ""
    toml = (
        '[store]\nurl = "memory://"\n[[models]]\nname = "m"\nsource = "org/m"\n'
        f'[[objectives]]\nname = "o"\naggregate = {aggregate}\n'
        f'[[objectives.terms]]\nmodel = "m"\ntransform = "{transform}"\nweight = {weight}\n{baseline}'
    )
    async with start(toml) as running:
        body = OPENRLHF.body([Sample(str(math.log(3)))])
        answer = (await running.http.post(OPENRLHF.url("o"), json=body)).json()
    assert [answer["rewards"][0], answer["scores"][0]] == pytest.approx(expected, abs=1e-12)


async def test_a_watched_term_that_fails_is_left_out_of_the_logs(start: Start) -> None:
    toml = '[store]\nurl = "memory://"\n'
    toml += "".join(f'[[models]]\nname = "{name}"\nsource = "org/{name}"\n' for name in "mw")
    toml += '[[objectives]]\nname = "o"\naggregate = "mean"\n'
    toml += '[[objectives.terms]]\nmodel = "m"\ntransform = "identity"\n'
    toml += '[[objectives.terms]]\nmodel = "w"\ntransform = "identity"\nweight = 0\nbaseline = { policy = "sft" }\n'
    toml = toml.replace('model = "w"\ntransform = "identity"', 'model = "w"\ntransform = "centered"')
    async with start(toml) as running:
        answer = await running.http.post(OPENRLHF.url("o"), json=OPENRLHF.body([Sample("1.5"), Sample("2")]))
    document = json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document["rewards"] == [1.5, 2.0]
    assert set(document["extra_logs"]) == {"m/raw", "m/transformed", "w/raw"}
