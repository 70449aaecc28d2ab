"""From the items of OpenAI's Responses form to the messages of a chat."""

from collections.abc import Iterable, Sequence
from typing import Any

from reward_service.errors import InvalidRequest
from reward_service.problems import shown

TEXT_PARTS = ("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text")
ROLES = {"developer": "system"}
Chat = list[dict[str, Any]]


def conversation_items(given: Iterable[dict[str, Any]], output: Sequence[dict[str, Any]]) -> Chat:
    """The messages of what was asked and what was answered; InvalidRequest names an item that is not understood.

    Calls join the assistant's message before them, and thoughts the one behind them (`reasoning_content`).
    """
    chat: Chat = []
    thoughts: list[str] = []
    where = [(f"responses_create_params.input[{i}]", item) for i, item in enumerate(given)]
    where += [(f"response.output[{i}]", item) for i, item in enumerate(output)]
    for path, item in where:
        _add(chat, thoughts, path, item)
    if thoughts:
        _assistant(chat, thoughts)
    return chat


def tools_of(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Function tools as chat templates take them; None for none."""
    functions = [tool for tool in tools or () if tool.get("type") == "function" and "name" in tool]
    names = ("name", "description", "parameters")
    return [
        {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}
        for tool in functions
    ] or None


def _add(chat: Chat, thoughts: list[str], path: str, item: dict[str, Any]) -> None:
    match item.get("type", "message"):
        case "message":
            _message(chat, thoughts, path, item)
        case "reasoning":
            thoughts.append(_text(f"{path}.summary", item.get("content") or item.get("summary") or ""))
        case "function_call":
            call = {"name": _string(path, item, "name"), "arguments": _string(path, item, "arguments")}
            called = {"id": _string(path, item, "call_id"), "type": "function", "function": call}
            _assistant(chat, thoughts).setdefault("tool_calls", []).append(called)
        case "function_call_output":
            output = _text(f"{path}.output", item.get("output"))
            chat.append({"role": "tool", "tool_call_id": _string(path, item, "call_id"), "content": output})
        case other:
            valid = "message, reasoning, function_call or function_call_output"
            raise InvalidRequest(f"{path}.type: {shown(other)} is not understood; valid: {valid}")


def _message(chat: Chat, thoughts: list[str], path: str, item: dict[str, Any]) -> None:
    role, content = _string(path, item, "role"), _text(f"{path}.content", item.get("content"))
    if role == "assistant":
        _assistant(chat, thoughts, fresh=True)["content"] = content
    else:
        chat.append({"role": ROLES.get(role, role), "content": content})


def _assistant(chat: Chat, thoughts: list[str], *, fresh: bool = False) -> dict[str, Any]:
    """The assistant's message to write into: the last one, or a new one with the thoughts so far."""
    if fresh or thoughts or not chat or chat[-1]["role"] != "assistant":
        chat.append({"role": "assistant", "content": ""})
    if thoughts:
        chat[-1]["reasoning_content"] = "\n".join(thoughts)
        thoughts.clear()
    return chat[-1]


def _text(path: str, content: object) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{path}: {shown(content)} is not valid: expected a text or a list of parts")
    return "".join(_part(f"{path}[{i}]", part) for i, part in enumerate(content))


def _part(path: str, part: object) -> str:
    if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS:
        kind = part.get("type") if isinstance(part, dict) else part
        raise InvalidRequest(f"{path}: {shown(kind)} is not text; valid: {', '.join(TEXT_PARTS)}")
    return _string(path, part, "refusal" if part["type"] == "refusal" else "text")


def _string(path: str, item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{path}.{name}: {shown(value)} is not valid: expected a text")
    return value
