"""Which prompts are the same prompt, and where things lie in the store."""

import hashlib
import re
from typing import Any

import pytest

from reward_service.baselines import CannedKey, RowsKey, SnapshotKey, prompt_key
from reward_service.baselines.keys import policy_key
from reward_service.errors import InvalidRequest

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"default": None}}}
FINGERPRINT = "sha256:" + "0" * 64


def test_the_key_of_a_prompt_is_pinned_since_stored_baselines_depend_on_it() -> None:
    canonical = '{"messages":[{"content":"H\u00e9llo","role":"user"}],"tools":[]}'
    assert prompt_key("H\u00e9llo") == hashlib.sha256(canonical.encode()).hexdigest()
    assert prompt_key("Hello") == "976cf1979fdc116c974523f3f51d89ab955147fd04ce32ff4e600474c719c960"


@pytest.mark.parametrize(
    "same",
    [
        [USER],
        (USER,),
        [{"content": "Hello", "role": "user"}],
        [{**USER, "name": None, "tool_calls": None}],
    ],
)
def test_spellings_of_one_prompt_have_one_key(same: Any) -> None:
    assert prompt_key(same) == prompt_key("Hello")
    assert prompt_key(same, tools=[]) == prompt_key(same, tools=None)


def test_null_means_something_in_the_arguments_of_a_tool_call() -> None:
    def calling(arguments: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]

    assert prompt_key(calling({"limit": None})) != prompt_key(calling({}))


@pytest.mark.parametrize(
    ("prompt", "tools"),
    [
        ("Hello ", None),
        ("hello", None),
        ([{"role": "system", "content": "Hello"}], None),
        ([USER, USER], None),
        ([], None),
        ([{**USER, "name": "x"}], None),
        ([USER], [TOOL]),
    ],
)
def test_other_prompts_have_other_keys(prompt: Any, tools: Any) -> None:
    assert prompt_key(prompt, tools) != prompt_key("Hello")


def test_null_means_something_in_the_schema_of_a_tool() -> None:
    bare = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert prompt_key([USER], [TOOL]) != prompt_key([USER], [bare])


def test_text_that_is_not_valid_unicode_has_a_key() -> None:
    assert prompt_key("\ud800") != prompt_key("\ud801")


@pytest.mark.parametrize("content", [b"bytes", float("nan"), object()])
def test_a_prompt_that_is_not_json_is_refused(content: Any) -> None:
    with pytest.raises(InvalidRequest, match="not JSON"):
        prompt_key([{"role": "user", "content": content}])


def test_a_prompt_nested_too_deeply_is_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        prompt_key([{**USER, "tool_calls": [deep]}])
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        prompt_key("Hello", [deep])


def test_the_layout_of_the_store() -> None:
    prompt = prompt_key("Hello")
    assert policy_key("sft") == "policy/sft"
    assert RowsKey(FINGERPRINT, "sft", prompt).store_key == f"rows/{FINGERPRINT}/sft/{prompt}"
    assert SnapshotKey(FINGERPRINT, "sft").store_key == f"snapshot/{FINGERPRINT}/sft"
    assert re.fullmatch(rf"canned/{FINGERPRINT}/[0-9a-f]{{64}}", CannedKey(FINGERPRINT, "No.\n", prompt).store_key)


def test_canned_keys_tell_responses_and_prompts_apart() -> None:
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("b", "a")]
    assert len({CannedKey(FINGERPRINT, response, prompt).store_key for response, prompt in pairs}) == 4


@pytest.mark.parametrize("policy", ["", "a/b", "a b", "/", "é", "a\n"])
def test_a_policy_that_would_break_the_layout_is_refused(policy: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a policy"):
        policy_key(policy)
