"""Conversations that fail alone: what is sent, the code, and what the sentence must say."""

from typing import Any

from tests.api.bad_requests import GOOD

CONVERSATIONS: dict[str, tuple[Any, str, list[str]]] = {
    "not an object": ("hello", "invalid_request", ["conversations[1]", "'hello'"]),
    "empty": ({}, "invalid_request", ["conversations[1]", "given: none"]),
    "prompt alone": ({"prompt": "p"}, "invalid_request", ["`prompt` with `response`", "given: prompt"]),
    "response alone": ({"response": "1"}, "invalid_request", ["given: response"]),
    "both forms": (
        {"prompt": "p", "response": "1", "text": "t"},
        "invalid_request",
        ["given: prompt and response and text"],
    ),
    "messages that are none": ({"messages": []}, "invalid_request", ["conversations[1].messages: []", "at least 1"]),
    "last turn of the user": (
        {"messages": [{"role": "user", "content": "hi"}]},
        "invalid_request",
        ["end in the assistant turn", "'user'"],
    ),
    "message without content": ({"messages": [{"role": "assistant"}]}, "invalid_request", ["messages[0]", "`content`"]),
    "message without role": ({"messages": [{"content": "x"}]}, "invalid_request", ["messages[0].role: required"]),
    "content of another type": (
        {"messages": [{"role": "assistant", "content": 4}]},
        "invalid_request",
        ["messages[0].content: 4", "string"],
    ),
    "misspelt field": (
        {"prompt": "p", "respones": "1"},
        "invalid_request",
        ["unknown field 'respones'", "did you mean 'response'?"],
    ),
    "id of another type": ({**GOOD, "id": 5}, "invalid_request", ["conversations[1].id: 5", "string"]),
    "empty prompt": ({"prompt": "", "response": "1"}, "invalid_request", ["prompt is empty"]),
    "tools with text": ({"text": "t", "tools": [{"type": "function"}]}, "invalid_request", ["`tools`", "`text`"]),
    "references for no term": (
        {**GOOD, "references": {"x": {"rewards": [1.0]}}},
        "invalid_request",
        ["conversations[1].references.x", "no such term"],
    ),
    "references of both kinds": (
        {**GOOD, "references": {"m": {"rewards": [1.0], "responses": ["1"]}}},
        "invalid_request",
        ["references.m: give either"],
    ),
    "references that are none": (
        {**GOOD, "references": {"m": {"rewards": []}}},
        "invalid_request",
        ["references.m.rewards: []", "at least 1"],
    ),
    "model gives NaN": ({"prompt": "p", "response": "nan"}, "not_finite", ["NaN"]),
    "device fails": ({"prompt": "p", "response": "boom"}, "engine_failed", ["the device failed"]),
}

CENTERED: dict[str, tuple[Any, str, list[str]]] = {
    "no references": (GOOD, "baseline_missing", ["term 'm'", "0 references", "'sft'", "8 needed", "PUT /v1/baselines"]),
    "text has no prompt": ({"text": "1.0"}, "prompt_required", ["term 'm'", "`text`"]),
    "a reference fails": (
        {**GOOD, "references": {"m": {"responses": ["1", "nan"]}}},
        "not_finite",
        ["references.m.responses[1]"],
    ),
    "text with responses": (
        {"text": "1.0", "references": {"m": {"responses": ["1"]}}},
        "invalid_request",
        ["references.m.responses", "`rewards`"],
    ),
}
