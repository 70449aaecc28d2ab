"""vLLM's form: texts, messages, both answers, and the raw outputs of a model at the root."""

import base64
import json
import math
import struct
from typing import Any

import httpx
import pytest

from reward_service.errors import EngineFailed
from tests.access.configs import MODEL
from tests.conftest import Start
from tests.dialects.bursts import CALLS, PATIENT, let_a_burst_last
from tests.dialects.conversations import ORDINARY, Sample
from tests.dialects.peers import CLASSIFY, EMBEDDINGS
from tests.scripted import ScriptedEngine


def scored(http: httpx.Client, conversation: dict[str, Any]) -> Any:
    asked = {"objective": "both", "conversations": [conversation]}
    return http.post("/v1/score", json=asked).json()["scores"][0]


def test_the_whole_answer_is_vllms(http: httpx.Client) -> None:
    answer = CLASSIFY.post(http, "both", ORDINARY[:1]).json()
    reward = answer["data"][0]["probs"][0]
    assert answer["id"].startswith("classify-")
    assert answer["created"] > 1.7e9
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    kept = {name: answer[name] for name in ("object", "model", "data")}
    one = {"index": 0, "label": "both", "probs": [reward], "num_classes": 1}
    assert kept == {"object": "list", "model": "both", "data": [one]}


def test_an_embedding_may_be_base64_as_openais_client_asks(http: httpx.Client) -> None:
    plain = EMBEDDINGS.post(http, "both", ORDINARY).json()
    body = {**EMBEDDINGS.body(ORDINARY), "encoding_format": "base64"}
    encoded = http.post(EMBEDDINGS.url("both"), json=body).json()
    assert encoded["id"].startswith("embd-")
    for one, other in zip(plain["data"], encoded["data"], strict=True):
        assert (one["object"], other["object"]) == ("embedding", "embedding")
        (number,) = struct.unpack("<f", base64.b64decode(other["embedding"]))
        assert number == pytest.approx(one["embedding"][0], rel=1e-6)


@pytest.mark.parametrize("peer", [CLASSIFY, EMBEDDINGS], ids=lambda one: one.name)
def test_messages_go_through_the_models_template(peer: Any, http: httpx.Client) -> None:
    for sample in ORDINARY:
        messages = sample.conversation["messages"]
        answer = http.post(peer.url("both"), json={"model": "any", "messages": messages})
        assert peer.rewards(answer.json()) == pytest.approx([scored(http, sample.conversation)["reward"]], abs=1e-9)


def test_reparse_gives_the_number_of_the_messages(http: httpx.Client) -> None:
    answer = CLASSIFY.post(http, "both", ORDINARY, "?input=reparse")
    expected = [scored(http, one.conversation)["reward"] for one in ORDINARY]
    assert CLASSIFY.rewards(answer.json()) == pytest.approx(expected, abs=1e-9)
    assert answer.headers["x-reward-input"] == "reparse"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_activation": True}, "use_activation"),
        ({"activation": True}, "activation"),
        ({"truncate_prompt_tokens": 512}, "truncate_prompt_tokens"),
        ({"input": [1, 2, 3]}, "input[0]: 1 is not valid"),
        ({"input": [[1, 2, 3]]}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]: the text is empty"),
        ({"messages": [{"role": "user", "content": "a"}]}, "either `input`"),
    ],
)
def test_what_would_change_the_number_is_refused(fields: dict[str, Any], said: str, http: httpx.Client) -> None:
    answer = http.post(CLASSIFY.url("both"), json={"model": "m", "input": "text", **fields})
    assert answer.status_code == 422
    assert said in answer.json()["error"]["message"]


def test_what_changes_nothing_is_let_be(http: httpx.Client) -> None:
    fields = {"user": "verl", "priority": 0, "add_special_tokens": True, "use_activation": False, "softmax": False}
    assert http.post(CLASSIFY.url("both"), json={"input": "text", **fields}).status_code == 200
    assert http.post(EMBEDDINGS.url("both"), json={"input": "text", "dimensions": 5}).status_code == 422


def test_one_text_that_fails_is_named(http: httpx.Client) -> None:
    answer = CLASSIFY.post(http, "broken", [*ORDINARY, Sample("~")])
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith("input[3]: ")


def test_the_root_gives_the_raw_output_of_a_model(http: httpx.Client) -> None:
    """As verl's reward loop asks: `use_activation` false, the last number of the last item."""
    for sample in ORDINARY:
        for switch in ("use_activation", "activation"):
            body = {"model": "helpful", "input": sample.rendered, switch: False}
            answer = http.post("/classify", json=body)
            assert answer.status_code == 200, answer.text
            raw = scored(http, {"text": sample.rendered})["terms"][0]["raw"]
            assert answer.json()["data"][-1]["probs"][-1] == pytest.approx(raw, abs=1e-9)
            assert answer.json()["model"] == "helpful"
            assert list(answer.headers["x-reward-models"].split("=")[:1]) == ["helpful"]


def test_the_root_activates_as_vllm_does_unless_told_otherwise(http: httpx.Client) -> None:
    raw = scored(http, {"text": ORDINARY[0].rendered})["terms"][0]["raw"]
    body = {"model": "helpful", "input": ORDINARY[0].rendered}
    for fields in ({}, {"use_activation": True}, {"use_activation": None, "activation": True}):
        (found,) = http.post("/classify", json={**body, **fields}).json()["data"][0]["probs"]
        assert found == pytest.approx(1 / (1 + math.exp(-raw)), abs=1e-9)


def test_the_root_takes_messages_and_says_which_models_there_are(http: httpx.Client) -> None:
    body = {"messages": ORDINARY[0].conversation["messages"], "use_activation": False}
    answer = http.post("/classify", json={"model": "helpful", **body}).json()
    expected = scored(http, ORDINARY[0].conversation)["terms"][0]["raw"]
    assert answer["data"][0]["probs"] == pytest.approx([expected], abs=1e-9)
    unnamed = http.post("/classify", json=body)
    assert (unnamed.status_code, unnamed.json()["code"]) == (422, "invalid_request")
    assert "valid: broken, harmless, helpful, terse, whole" in unnamed.json()["error"]["message"]
    unknown = http.post("/classify", json={"model": "helpfull", **body})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")
    assert "did you mean 'helpful'?" in unknown.json()["error"]["message"]
    assert http.post("/classify?objective=both", json=body).status_code == 422
    nan = http.post("/classify", json={"model": "broken", "input": Sample("~").rendered, "use_activation": False})
    assert (nan.status_code, nan.json()["code"]) == (503, "not_finite")


async def test_the_root_gives_every_output_of_a_model_by_its_name(start: Start) -> None:
    engine = ScriptedEngine("m", labels=("bad", "good"))
    async with start(MODEL, m=engine) as running:
        body = {"input": ["1.5 -2", "-700 700"], "use_activation": False}
        answer = (await running.http.post("/classify", json=body)).json()
        assert [one["probs"] for one in answer["data"]] == [[1.5, -2.0], [-700.0, 700.0]]
        assert [one["label"] for one in answer["data"]] == ["bad", "good"]
        assert [one["num_classes"] for one in answer["data"]] == [2, 2]
        activated = (await running.http.post("/classify", json={"input": ["1.5 -2", "-700 700"]})).text
        rows = [one["probs"] for one in json.loads(activated)["data"]]
        odds = [math.exp(1.5), math.exp(-2)]
        assert rows[0] == pytest.approx([one / sum(odds) for one in odds], abs=1e-12)
        assert rows[1] == [0.0, 1.0]


async def test_the_root_does_not_divide_by_the_temperature(start: Start) -> None:
    async with start(MODEL.replace('source = "org/m"', 'source = "org/m"\ntemperature = 4.0')) as running:
        body = {"input": "1.5", "use_activation": False}
        assert (await running.http.post("/classify", json=body)).json()["data"][0]["probs"] == [1.5]


async def test_the_root_waits_in_a_burst_and_tells_a_dead_engine(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start(PATIENT) as running:
        engine, body = running.engines["m"], {"input": "1.5", "use_activation": False}
        let_a_burst_last(engine, monkeypatch)
        assert (await running.http.post("/classify", json=body)).status_code == 429
        assert len(engine.calls) == CALLS
        engine.raises = EngineFailed("the device has failed")
        answer = await running.http.post("/classify", json=body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "engine_failed")
