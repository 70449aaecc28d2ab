"""ROLL submits a sample and asks for its result, of whichever server: a number of `/v1/score`, or no number."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from reward_service.errors import EngineFailed, Overloaded
from tests.access.configs import KEYS, MODEL, with_keys
from tests.conftest import Running, Start
from tests.dialects.conversations import LONG, ORDINARY, Sample

SUBMIT, RESULT = "/roll/{}/submit_task", "/roll/{}/task_result"


def words(sample: Sample) -> str:
    """The prompt as ROLL decodes it: without special tokens, but with the words between them."""
    turns = "".join(f"{turn['role']}\n{turn['content']}\n" for turn in sample.prompt)
    return f"{turns}assistant\n"


def task(sample: Sample, **fields: Any) -> dict[str, Any]:
    """What `RewardSystemHandler.submit_task` sends."""
    return {
        "priority": 1,
        "project_id": "roll_default_task_id",
        "experiment_id": "roll_default_task_id",
        "global_step": 3,
        "data_id": "7",
        "rollout_id": "7_0",
        "prompt": words(sample),
        "response": sample.response,
        "reward_info": {"ground_truth": "5"},
        "reward_manager": [{"plugin_name": "rm"}],
        "timeout": 300,
        **fields,
    }


def poll(http: httpx.Client, name: str, objective: str = "both") -> Any:
    """What `get_task_result` gets in the end: it asks with the name in the body of a GET."""
    headers = {"content-type": "application/json", "xrl-authorization": "Bearer t", "businesstype": "online"}
    for _ in range(100):
        question = json.dumps({"reward_request_id": name})
        answer = http.request("GET", RESULT.format(objective), content=question, headers=headers)
        answer.raise_for_status()
        if answer.json()["errcode"] != 1:
            return answer.json()
    raise TimeoutError(name)


def submit(http: httpx.Client, sample: Sample, objective: str = "both", query: str = "", **fields: Any) -> str:
    answer = http.post(SUBMIT.format(objective) + query, content=json.dumps(task(sample, **fields)), headers=JSON)
    assert answer.status_code == 200, answer.text
    assert answer.json()["errcode"] == 0
    return str(answer.json()["reward_request_id"])


JSON = {"content-type": "application/json"}


def result(http: httpx.Client, sample: Sample, objective: str = "both", query: str = "", **fields: Any) -> Any:
    return poll(http, submit(http, sample, objective, query, **fields), objective)


def scored(http: httpx.Client, conversation: dict[str, Any], objective: str = "both") -> Any:
    asked = {"objective": objective, "conversations": [conversation]}
    return http.post("/v1/score", json=asked).json()["scores"][0]


def check(http: httpx.Client, sample: Sample, **fields: Any) -> None:
    turns = [turn | {"content": turn["content"].rstrip("\n")} for turn in sample.prompt]
    expected = scored(http, {"messages": [*turns, {"role": "assistant", "content": sample.response}]})["reward"]
    assert result(http, sample, **fields)["reward_score"] == pytest.approx(expected, abs=1e-9)


SINGLE = Sample(ORDINARY[2].response, [LONG[0], LONG[3]])


def check_failed(told: Any, *said: str) -> None:
    """A sentence in place of a number, on which the trainer's `torch.tensor` stops."""
    assert told["errcode"] == 0
    assert isinstance(told["reward_score"], str)
    for one in said:
        assert one in told["reward_score"]


def test_ordinary_samples_have_the_numbers_of_v1_score(http: httpx.Client) -> None:
    for sample in (*ORDINARY[:2], SINGLE):
        check(http, sample)


def test_each_term_and_the_time_are_told(http: httpx.Client) -> None:
    told, expected = result(http, ORDINARY[0]), scored(http, ORDINARY[0].conversation)
    assert told["dimention_reward_score"] == {
        term["name"]: {
            "reward_score": pytest.approx(term["transformed"], abs=1e-9),
            "raw": pytest.approx(term["raw"], abs=1e-9),
            "debug_info": {},
        }
        for term in expected["terms"]
    }
    assert told["start_time"] < told["end_time"]
    whole = {"objective": "both", "conversations": [ORDINARY[0].conversation]}
    answer = http.post("/v1/score", json=whole).json()
    assert told["objective_hash"] == answer["objective_hash"]
    assert told["models"] == {name: used["fingerprint"] for name, used in answer["models"].items()}


def test_a_prompt_whose_markers_are_no_special_tokens_is_read_by_them(http: httpx.Client) -> None:
    check(http, ORDINARY[0], prompt=f"<｜User｜>{ORDINARY[0].prompt[0]['content']}<｜Assistant｜>")


def test_a_prompt_without_words_is_the_users(http: httpx.Client) -> None:
    check(http, ORDINARY[0], prompt=ORDINARY[0].prompt[0]["content"])
    told = result(http, ORDINARY[0], query="?input=messages")
    expected = scored(http, {"prompt": words(ORDINARY[0]), "response": ORDINARY[0].response})["reward"]
    assert told["reward_score"] == pytest.approx(expected, abs=1e-9)


def test_a_prompt_in_which_words_and_contents_cannot_be_told_apart_is_an_error(http: httpx.Client) -> None:
    check_failed(result(http, ORDINARY[2]), "reparse_failed", "cannot be told apart", "input=messages")


def test_a_wrong_body_or_url_stops_the_trainer(http: httpx.Client) -> None:
    """Since what is refused at once it submits five times, and then takes 0."""
    for body, said in (
        ({}, "prompt: required"),
        ([], "expected an object"),
        (task(SINGLE, prompt=5), "prompt: 5"),
        (task(SINGLE, timeout=0), "timeout"),
        (task(SINGLE, response=None), "response"),
    ):
        answer = http.post(SUBMIT.format("both"), json=body)
        check_failed(poll(http, answer.json()["reward_request_id"]), "invalid_request", said)
    check_failed(result(http, SINGLE, query="?inptu=raw"), "invalid_request", "did you mean 'input'?")


def test_what_is_no_submission_at_all_is_refused(http: httpx.Client) -> None:
    answer = http.post(SUBMIT.format("both"), content="{", headers=JSON)
    told = answer.json()
    assert (answer.status_code, told["errcode"], told["errmsg"]) == (400, 400, told["detail"])
    assert "reward_request_id" not in told
    answer = http.request("GET", RESULT.format("both"), json={"reward_request_id": "a b"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_an_unknown_objective_stops_the_trainer(http: httpx.Client) -> None:
    check_failed(result(http, SINGLE, "bth"), "objective_not_found", "did you mean 'both'?")


def test_a_run_can_be_pinned_by_its_url(http: httpx.Client) -> None:
    check_failed(result(http, SINGLE, query="?objective_hash=sha256:0"), "expectation_failed", "sha256:0")


def test_nan_from_a_model_is_an_error(http: httpx.Client) -> None:
    check_failed(result(http, Sample("~"), "broken"), "not_finite")


def test_special_tokens_emoji_and_thoughts_in_a_response_are_what_it_says(http: httpx.Client) -> None:
    check(http, Sample("Five.<|im_end|>\n<|im_start|>assistant\nuser\nYou are welcome.</s>"))
    check(http, Sample("So tall! \ufffd"))
    check(http, Sample("<think>\nGiraffes ...\n</think>\n\nAbout five metres."))
    check_failed(result(http, Sample("So tall! \ud83e")), "surrogate")


def test_a_prompt_that_was_cut_at_its_left_is_an_error_where_markers_tell(http: httpx.Client) -> None:
    told = result(http, ORDINARY[0], prompt="is a giraffe?<｜Assistant｜>")
    check_failed(told, "reparse_failed", "cut at the left")


def test_a_response_cut_at_the_length_limit_is_scored_as_any_other(http: httpx.Client) -> None:
    check(http, Sample("Giraffes reach about", ended=False))


def test_an_unknown_name_lets_the_trainer_submit_anew(http: httpx.Client) -> None:
    told = poll(http, "unknown")
    assert (told["errcode"], told["reward_score"]) == (0, None)
    assert "submit it anew" in told["errmsg"]


async def ask(running: Running, name: str) -> Any:
    answer = await running.http.request("GET", RESULT.format("o"), json={"reward_request_id": name})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def submitted(running: Running, response: str, **fields: Any) -> str:
    answer = await running.http.post(SUBMIT.format("o"), json=task(Sample(response), **fields))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["reward_request_id"])


async def test_a_dead_engine_is_waited_for_and_then_stops_the_trainer(start: Start) -> None:
    async with start(MODEL) as running:
        engine = running.engines["m"]
        engine.raises = EngineFailed("the device has failed")
        name = await submitted(running, "1.5", timeout=3.9)  # time for a second try, and none for a third
        check_failed(await ask(running, name), "engine_failed", "the device has failed")
        name = await submitted(running, "1.5")
        while len(engine.calls) < 2:
            await asyncio.sleep(0.01)
        engine.raises = None
        assert (await ask(running, name))["reward_score"] == 1.5


async def test_a_burst_is_waited_for_at_the_server(start: Start) -> None:
    async with start(MODEL) as running:
        running.engines["m"].raises = Overloaded("no room", retry_after_s=0.01)
        names = [await submitted(running, f"{i}.5") for i in range(20)]
        await asyncio.sleep(0.1)
        running.engines["m"].raises = None
        assert [(await ask(running, name))["reward_score"] for name in names] == [i + 0.5 for i in range(20)]


async def test_a_sample_that_takes_longer_than_the_trainer_waits_is_an_error(start: Start) -> None:
    async with start(MODEL) as running:
        running.engines["m"].gate = asyncio.Event()
        name = await submitted(running, "1.5", timeout=0.2)
        check_failed(await ask(running, name), "deadline_exceeded", "0.2 s")
        name = await submitted(running, "1.5", timeout=1e-9)
        check_failed(await ask(running, name), "deadline_exceeded", "1e-09 s")
    engine = running.engines["m"]
    assert engine.cancelled == len(engine.calls) <= 1  # none, where the machine stood still until the time was over


async def test_a_key_in_the_url_opens_both_routes(start: Start) -> None:
    async with start(with_keys()) as running:
        answer = await running.http.post(SUBMIT.format("o"), json=task(Sample("1.5")))
        assert answer.status_code == 401
        running.http.auth = httpx.BasicAuth("any", KEYS["score"])
        assert (await ask(running, await submitted(running, "1.5")))["reward_score"] == 1.5


def test_the_first_question_is_held_until_the_result_is_there(http: httpx.Client) -> None:
    """Since the trainer waits two seconds before the next one."""
    question = {"reward_request_id": submit(http, ORDINARY[0])}
    assert http.request("GET", RESULT.format("both"), json=question).json()["errcode"] == 0
