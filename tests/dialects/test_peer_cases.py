"""vLLM's form, NeMo-Gym and ROLL's judge in every case of the table: the number of `/v1/score`, or no number."""

import asyncio
import json
import math

import httpx
import pytest

from reward_service.errors import EngineFailed, Overloaded
from tests.access.configs import MODEL
from tests.conftest import Start
from tests.dialects.bursts import CALLS, PATIENT, let_a_burst_last
from tests.dialects.conversations import LONG, ORDINARY, Sample
from tests.dialects.peers import CLASSIFY, EMBEDDINGS, JUDGE, NEMO_GYM, PEERS, Peer
from tests.dialects.trainers import has_a_number

each_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda one: one.name)
FINITE, NAN = "0.75", "nan"


def probable(toml: str) -> str:
    """With rewards that are the logarithms of probabilities."""
    return toml.replace('aggregate = "mean"', 'aggregate = "and"').replace('"identity"', '"log_sigmoid"')


PROBABLE = probable(MODEL)


def expected(http: httpx.Client, peer: Peer, sample: Sample, objective: str) -> float:
    """What the trainer should make of a sample: the number of `/v1/score` for the conversation that it means."""
    asked = {"objective": objective, "conversations": [peer.conversation(sample)]}
    return peer.number(http.post("/v1/score", json=asked).json()["scores"][0]["reward"])


def check(peer: Peer, http: httpx.Client, sample: Sample, objective: str = "both") -> None:
    answer = peer.post(http, objective, [sample])
    assert answer.status_code == 200, answer.text
    assert peer.rewards(answer.json()) == pytest.approx([expected(http, peer, sample, objective)], rel=0, abs=1e-9)


def check_refused(peer: Peer, answer: httpx.Response, status: int, *said: str) -> None:
    """An error of this status, no number, in the trainer's own shape, that says these words."""
    assert answer.status_code == status, answer.text
    assert not has_a_number(answer), answer.text
    for words in said:
        assert words in answer.text
    if peer is not NEMO_GYM:
        told = answer.json()
        assert told["error"] == {"message": told["detail"], "type": told["code"], "param": None, "code": status}


@each_peer
def test_ordinary_conversations_have_the_numbers_of_v1_score(peer: Peer, http: httpx.Client) -> None:
    for sample in ORDINARY:
        check(peer, http, sample)
    answer = peer.post(http, "both", ORDINARY[:1])
    assert answer.headers["x-reward-input"] == peer.input
    assert answer.headers["x-reward-objective-hash"].startswith("sha256:")


@pytest.mark.parametrize("peer", [CLASSIFY, EMBEDDINGS], ids=lambda one: one.name)
def test_a_batch_is_answered_in_its_order_and_an_empty_one_empty(peer: Peer, http: httpx.Client) -> None:
    answer = peer.post(http, "both", ORDINARY).json()
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    assert peer.rewards(answer) == pytest.approx([expected(http, peer, one, "both") for one in ORDINARY], abs=1e-9)
    empty = peer.post(http, "both", [])
    assert (empty.status_code, empty.json()["data"]) == (200, [])


@each_peer
def test_an_empty_body_and_a_wrong_field_are_named(peer: Peer, http: httpx.Client) -> None:
    url, body = peer.url("both"), peer.body(ORDINARY[:1])
    check_refused(peer, http.post(url, json={}), 422, f"{peer.required}")
    misspelt = {f"{name}x" if name == peer.required else name: value for name, value in body.items()}
    check_refused(peer, http.post(url, json=misspelt), 422, peer.required)
    check_refused(peer, http.post(url, json={**body, peer.required: 5}), 422, peer.required, "5")
    wrong: object
    for wrong in ([], "text", 5):
        check_refused(peer, http.post(url, json=wrong), 422)
    check_refused(
        peer, http.post(url, content="{", headers={"content-type": "application/json"}), 400, "not valid JSON"
    )


@each_peer
def test_an_unknown_objective_is_told_with_those_that_there_are(peer: Peer, http: httpx.Client) -> None:
    check_refused(peer, peer.post(http, "bth", ORDINARY[:1]), 404, "did you mean 'both'?")


@each_peer
async def test_a_dead_engine_is_an_error(peer: Peer, start: Start) -> None:
    async with start(PROBABLE) as running:
        running.engines["m"].raises = EngineFailed("the device has failed")
        answer = await running.http.post(peer.url("o"), json=peer.body([Sample(FINITE)]))
        check_refused(peer, answer, 503, "the device has failed")


@pytest.mark.parametrize("peer", [NEMO_GYM, JUDGE], ids=lambda one: one.name)
async def test_a_burst_is_waited_for_at_the_server(peer: Peer, start: Start) -> None:
    async with start(PROBABLE) as running:
        engine = running.engines["m"]
        engine.raises = Overloaded("no room", retry_after_s=0.01)
        answer = asyncio.create_task(running.http.post(peer.url("o"), json=peer.body([Sample(FINITE)])))
        while len(engine.calls) < 3:
            await asyncio.sleep(0.01)
        engine.raises = None
        reward = -math.log1p(math.exp(-float(FINITE)))
        assert peer.rewards((await answer).json()) == pytest.approx([peer.number(reward)], abs=1e-9)


@each_peer
async def test_a_burst_that_lasts_is_an_error_in_the_end(
    peer: Peer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(probable(PATIENT)) as running:
        let_a_burst_last(running.engines["m"], monkeypatch)
        answer = await running.http.post(peer.url("o"), json=peer.body([Sample(FINITE)]))
        check_refused(peer, answer, 429, "no room")
        assert answer.headers["retry-after"] == "1"
    assert len(running.engines["m"].calls) == CALLS


@each_peer
def test_nan_from_a_model_is_an_error(peer: Peer, http: httpx.Client) -> None:
    check_refused(peer, peer.post(http, "broken", [Sample("~")]), 503, "not_finite")


@each_peer
def test_special_tokens_inside_a_response_are_what_it_says(peer: Peer, http: httpx.Client) -> None:
    check(peer, http, Sample("About <s>five</s> <|endoftext|>metres<pad>, [INST] I think [/INST]."))
    check(peer, http, Sample("Five.<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>\n<|im_start|>assistant\nWelcome."))


@each_peer
def test_an_emoji_split_across_tokens_is_scored_and_half_a_surrogate_pair_refused(
    peer: Peer, http: httpx.Client
) -> None:
    check(peer, http, Sample("So tall! \ufffd", ended=False))
    check_refused(peer, peer.post(http, "both", [Sample("So tall! \ud83e")]), 422, "surrogate")


@pytest.mark.parametrize("peer", [CLASSIFY, EMBEDDINGS], ids=lambda one: one.name)
def test_a_text_that_was_cut_at_its_left_is_scored_as_it_is_or_refused(peer: Peer, http: httpx.Client) -> None:
    cut = ORDINARY[2].rendered[40:]
    asked = {"objective": "both", "conversations": [{"text": cut}]}
    plain = http.post("/v1/score", json=asked).json()["scores"][0]["reward"]
    assert peer.rewards(http.post(peer.url("both"), json={"input": cut}).json()) == pytest.approx([plain], abs=1e-9)
    reparsed = http.post(f"{peer.url('both')}?input=reparse", json={"input": cut})
    check_refused(peer, reparsed, 422, "reparse_failed", "input[0]: ", "cut at the left")


@each_peer
def test_a_response_cut_at_the_length_limit_is_scored_as_one_where_the_trainer_tells(
    peer: Peer, http: httpx.Client
) -> None:
    cut = Sample("Giraffes reach about", ended=False)
    check(peer, http, cut)
    if peer.knows_finish:
        check_refused(peer, peer.post(http, "whole", [cut]), 422, "unfinished_response")
        assert peer.post(http, "whole", [cut], "?finish=unknown").status_code == 200


@each_peer
def test_a_think_block_is_part_of_the_response(peer: Peer, http: httpx.Client) -> None:
    check(peer, http, Sample("<think>\nGiraffes ...\n</think>\n\nAbout five metres.", LONG))


@each_peer
def test_a_run_can_be_pinned_by_its_url(peer: Peer, http: httpx.Client) -> None:
    pinned = peer.post(http, "both", ORDINARY[:1]).headers["x-reward-objective-hash"]
    assert peer.post(http, "both", ORDINARY[:1], f"?objective_hash={pinned}").status_code == 200
    check_refused(peer, peer.post(http, "both", ORDINARY[:1], "?objective_hash=sha256:0"), 409, "sha256:0", pinned)


@each_peer
def test_an_input_mode_that_the_trainer_cannot_serve_is_refused(peer: Peer, http: httpx.Client) -> None:
    mode = "messages" if peer.input == "raw" else "raw"
    check_refused(peer, peer.post(http, "both", ORDINARY[:1], f"?input={mode}"), 422, "input", mode)


async def test_an_objective_of_rendered_texts_still_takes_messages(start: Start) -> None:
    async with start(PROBABLE.replace('name = "o"', 'name = "o"\ninput = "raw"')) as running:
        for peer in (NEMO_GYM, JUDGE):
            answer = await running.http.post(peer.url("o"), json=peer.body([Sample(FINITE)]))
            assert answer.status_code == 200
            assert answer.headers["x-reward-input"] == "messages"
            json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
