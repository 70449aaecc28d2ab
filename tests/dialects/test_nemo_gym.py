"""NeMo-Gym: the items of a rollout as messages, the request's own fields in the answer, and components that sum."""

import json
import math
from typing import Any

import httpx
import pytest

from tests.access.configs import MODEL
from tests.conftest import Start
from tests.dialects.conversations import LONG, ORDINARY, Sample
from tests.dialects.peers import NEMO_GYM, rollout

URL = NEMO_GYM.url("both")
CALL = {"type": "function_call", "call_id": "c1", "name": "measure", "arguments": '{"animal": "okapi"}', "id": "f1"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "1.5 m"}
TOOL = {
    "type": "function",
    "name": "measure",
    "description": "The height of an animal.",
    "parameters": {"type": "object", "properties": {"animal": {"type": "string"}}},
    "strict": True,
}


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": text}]}


def verify(http: httpx.Client, given: Any, output: list[dict[str, Any]], **params: Any) -> httpx.Response:
    body = {"responses_create_params": {"input": given, **params}, "response": {"output": output}}
    return http.post(URL, json=body)


def check(http: httpx.Client, answer: httpx.Response, messages: list[dict[str, Any]], **fields: Any) -> None:
    asked = {"objective": "both", "conversations": [{"messages": messages, **fields}]}
    assert answer.status_code == 200, answer.text
    expected = http.post("/v1/score", json=asked).json()["scores"][0]["reward"]
    assert answer.json()["reward"] == pytest.approx(expected, abs=1e-9)


def test_the_request_comes_back_with_its_reward(http: httpx.Client) -> None:
    body = rollout(ORDINARY[2]) | {"extra": {"deep": [1, None, "é"]}}
    answer = http.post(URL, json=body).json()
    assert {name: answer[name] for name in body} == body
    assert set(answer) == {*body, "reward", "reward_components"}


def test_what_cannot_be_given_back_as_json_is_refused(http: httpx.Client) -> None:
    content = json.dumps(rollout(ORDINARY[0]) | {"row": {"value": math.nan}, "half": "\ud83e"})
    answer = http.post(URL, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    content = content.replace("NaN", "1")
    answer = http.post(URL, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["half"]) == (200, "\ud83e")


def test_components_of_an_earlier_reward_do_not_come_back(http: httpx.Client) -> None:
    body = rollout(ORDINARY[0]) | {"reward": 5.0, "reward_components": {"old": 5.0}}
    answer = http.post(NEMO_GYM.url("sure"), json=body).json()
    assert "reward_components" not in answer
    assert answer["reward"] != 5.0


def test_the_components_are_the_terms_and_sum_to_the_reward(http: httpx.Client) -> None:
    answer = NEMO_GYM.post(http, "both", ORDINARY[:1]).json()
    assert set(answer["reward_components"]) == {"helpful", "harmless"}
    assert sum(answer["reward_components"].values()) == pytest.approx(answer["reward"], abs=1e-12)


async def test_components_are_weighted_and_left_out_where_they_do_not_sum(start: Start) -> None:
    toml = '[store]\nurl = "memory://"\n[[models]]\nname = "m"\nsource = "org/m"\n'
    for name, aggregate in (("sum", "weighted_sum"), ("least", "min")):
        toml += f'[[objectives]]\nname = "{name}"\naggregate = "{aggregate}"\n'
        for weight, term in ((2.0, "a"), (3.0, "b"), (0.0, "watched")):
            weight = min(weight, 1.0) if name == "least" else weight
            toml += f'[[objectives.terms]]\nname = "{term}"\nmodel = "m"\ntransform = "identity"\nweight = {weight}\n'
    async with start(toml) as running:
        summed = await running.http.post(NEMO_GYM.url("sum"), json=rollout(Sample("1.5")))
        assert summed.json()["reward_components"] == {"a": 3.0, "b": 4.5}
        assert summed.json()["reward"] == 7.5
        least = await running.http.post(NEMO_GYM.url("least"), json=rollout(Sample("1.5")))
        assert (least.json()["reward"], "reward_components" in least.json()) == (1.5, False)


def test_a_text_is_one_message_of_the_user_and_instructions_are_the_system(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "How tall?"}, {"role": "assistant", "content": "Very."}]
    check(http, verify(http, "How tall?", [said("Very.")]), messages)
    check(
        http,
        verify(http, "How tall?", [said("Very.")], instructions="Be brief."),
        [{"role": "system", "content": "Be brief."}, *messages],
    )


def test_input_items_may_be_messages_of_any_role_and_parts(http: httpx.Client) -> None:
    given = [
        {"role": "developer", "content": "Be brief.", "type": "message"},
        {"role": "user", "content": [{"type": "input_text", "text": "How "}, {"type": "input_text", "text": "tall?"}]},
        said("Five metres."),
        {"role": "user", "content": "Sure?"},
    ]
    expected = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How tall?"},
        {"role": "assistant", "content": "Five metres."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    check(http, verify(http, given, [said("Yes.")]), expected)


async def test_thoughts_calls_and_tools_reach_the_model(start: Start) -> None:
    async with start(MODEL) as running:
        output = [thought("Ask."), said("Let me see."), CALL, OUTPUT, thought("1.5."), said("1.5")]
        params = {"input": list(LONG), "tools": [TOOL, {"type": "web_search"}]}
        body = {"responses_create_params": params, "response": {"output": output}}
        answer = await running.http.post(NEMO_GYM.url("o"), json=body)
        assert answer.json()["reward"] == 1.5
        item = running.engines["m"].calls[0][0]
    call = {"id": "c1", "type": "function", "function": {"name": "measure", "arguments": CALL["arguments"]}}
    assert list(item.messages or ()) == [
        *LONG,
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "Ask.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1.5 m"},
        {"role": "assistant", "content": "1.5", "reasoning_content": "1.5."},
    ]
    function = {name: TOOL[name] for name in ("name", "description", "parameters")}
    assert list(item.tools or ()) == [{"type": "function", "function": function}]


def test_a_rollout_that_ends_in_a_call_or_a_thought_is_scored_as_that(http: httpx.Client) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "measure", "arguments": CALL["arguments"]}}
    long: list[dict[str, Any]] = [*LONG]
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    check(http, verify(http, list(LONG), [CALL]), [*long, called])
    thinking = {"role": "assistant", "content": "", "reasoning_content": "Hm"}
    check(http, verify(http, list(LONG), [thought("Hm")]), [*long, thinking])


@pytest.mark.parametrize(
    ("given", "output", "reason"),
    [
        ("a", [], "response.output: [] has nothing"),
        (list(LONG[:3]), [], "response.output: [] has nothing"),
        ("a", [CALL, OUTPUT], "the last role is 'tool'"),
        ("a", [{"type": "web_search_call"}], "response.output[0].type: 'web_search_call' is not understood"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], [said("b")], "input[0].content[0]: 'input_image'"),
        ([{"role": "user", "content": 5}], [said("b")], "responses_create_params.input[0].content: 5 is not valid"),
        ([{"content": "a"}], [said("b")], "input[0].role: None is not valid"),
        ("a", [{**CALL, "arguments": {}}], "response.output[0].arguments: {} is not valid"),
        ("a", "b", "response.output"),
        (5, [said("b")], "responses_create_params.input"),
    ],
)
def test_what_has_no_response_to_score_is_refused(given: Any, output: Any, reason: str, http: httpx.Client) -> None:
    answer = verify(http, given, output)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert "reward" not in answer.json()
