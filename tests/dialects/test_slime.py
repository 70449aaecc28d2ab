"""slime and miles: one sample a request, and the whole answer is its reward."""

import json

import httpx
import pytest

from tests.dialects.conftest import Reference
from tests.dialects.conversations import LONG, ORDINARY, Sample
from tests.dialects.trainers import SLIME

SAMPLE = ORDINARY[2]


def test_the_answer_is_a_bare_number(http: httpx.Client) -> None:
    answer = SLIME.post(http, "both", [SAMPLE])
    assert isinstance(json.loads(answer.text), float)
    assert answer.headers["content-type"] == "application/json"


def test_a_reward_key_finds_the_reward_and_each_term(http: httpx.Client, reference: Reference) -> None:
    answer = SLIME.post(http, "both", [SAMPLE], "?answer=dict").json()
    assert answer["reward"] == pytest.approx(reference("both", [SAMPLE])[0], abs=1e-9)
    assert answer["reward"] == pytest.approx(answer["helpful/transformed"] + answer["harmless/transformed"], abs=1e-9)
    assert set(answer) == {"reward", *(f"{m}/{k}" for m in ("helpful", "harmless") for k in ("raw", "transformed"))}


@pytest.mark.parametrize("end", ["", "<|im_end|>", "<|im_end|>\n", "</s>"])
def test_a_prompt_may_be_messages(end: str, http: httpx.Client, reference: Reference) -> None:
    body = {"prompt": list(LONG), "response": SAMPLE.response + end, "label": None}
    meant = Sample(SAMPLE.response, LONG, ended=bool(end))
    answer = http.post(SLIME.url("both"), json=body)
    assert answer.json() == pytest.approx(reference("both", [meant])[0], abs=1e-9)


def test_messages_are_not_text_to_score_as_it_is(http: httpx.Client) -> None:
    answer = http.post(f"{SLIME.url('both')}?input=raw", json={"prompt": list(LONG), "response": "One."})
    assert answer.status_code == 422
    assert "input=raw needs the text of the prompt" in answer.json()["detail"]


@pytest.mark.parametrize("prompt", [[], "", [{"role": "user"}], None, 5])
def test_a_prompt_that_is_none_is_refused(prompt: object, http: httpx.Client) -> None:
    answer = http.post(SLIME.url("both"), json={"prompt": prompt, "response": "One."})
    assert answer.status_code == 422, answer.text
    assert "prompt" in answer.json()["detail"]


def test_without_special_tokens_nothing_is_known_of_the_end(http: httpx.Client, reference: Reference) -> None:
    """As with `--rollout-skip-special-tokens`."""
    body = {"prompt": SAMPLE.rendered_prompt, "response": SAMPLE.response, "label": None}
    answer = http.post(f"{SLIME.url('both')}?finish=unknown", json=body)
    assert answer.json() == pytest.approx(reference("both", [SAMPLE])[0], abs=1e-9)


def test_an_empty_response_is_scored(http: httpx.Client, reference: Reference) -> None:
    empty = Sample("")
    assert SLIME.post(http, "both", [empty]).json() == pytest.approx(reference("both", [empty])[0], abs=1e-9)
