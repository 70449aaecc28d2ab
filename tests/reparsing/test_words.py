"""Prompts without their special tokens: the words for roles are enough for one turn, and refused for more."""

import pytest

from reward_service.errors import ReparseFailed
from reward_service.reparsing import prompt_of_words
from tests.reparsing.rendering import BY_NAME, assistant, system, user

SPECIAL = {
    "qwen-2.5": ("<|im_start|>", "<|im_end|>"),
    "qwen-3": ("<|im_start|>", "<|im_end|>"),
    "llama-3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "llama-3.1": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma-3": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
}
QUESTION = user("How tall?\n\n1. A giraffe\n2. The user or assistant of it\n\n```\nuser = 5\n```")


def skipped(name: str, *messages: dict[str, str], thinking: bool = True) -> str:
    """A rendered prompt as `batch_decode(skip_special_tokens=True)` gives it."""
    text = BY_NAME[name].render(messages, open_turn=True, enable_thinking=thinking)
    for token in SPECIAL[name]:
        text = text.replace(token, "")
    return text


@pytest.mark.parametrize("name", SPECIAL)
def test_a_single_turn_comes_back(name: str) -> None:
    assert prompt_of_words(skipped(name, QUESTION)) == (QUESTION,)


@pytest.mark.parametrize("name", [name for name in SPECIAL if name != "gemma-3"])
def test_a_system_prompt_comes_back(name: str) -> None:
    given = (system("Be brief.\n\nNo lists."), QUESTION)
    assert prompt_of_words(skipped(name, *given)) == given


@pytest.mark.parametrize("thinking", [True, False])
def test_what_roll_leaves_of_a_thinking_prompt_is_no_part_of_it(thinking: bool) -> None:
    text = skipped("qwen-3", QUESTION, thinking=thinking)
    opened = f"{text}<think>\n" if thinking else text
    assert prompt_of_words(opened.replace("assistant\n<think>", "")) == (QUESTION,)


@pytest.mark.parametrize(
    "prompt", ["How tall?", "Human: hi\n\nAssistant:", "users\nask", "", "a\nuser\nb\nassistant\n"]
)
def test_a_prompt_without_words_is_one_message_of_the_user(prompt: str) -> None:
    assert prompt_of_words(prompt) == (user(prompt),)


@pytest.mark.parametrize("name", [name for name in SPECIAL if name != "gemma-3"])
def test_more_turns_are_refused(name: str) -> None:
    with pytest.raises(ReparseFailed, match=r"occur more than once.*input=messages"):
        prompt_of_words(skipped(name, user("a"), assistant("b"), user("c")))
    with pytest.raises(ReparseFailed, match="occur more than once"):
        prompt_of_words(skipped(name, system("s"), user("a"), assistant("b"), user("c")))
    with pytest.raises(ReparseFailed, match="occur more than once"):
        prompt_of_words("user\na\nmodel\nb\nuser\nc\nmodel\n")
