"""Prompts that were decoded without their special tokens, of which only the words for the roles are left."""

from reward_service.errors import ReparseFailed
from reward_service.reparsing.dialogue import Message, shown
from reward_service.reparsing.marked import without_llama_preamble, without_qwen_defaults

NO_THOUGHT_LEFT = "\n\n</think>\n\n"
"""What a trainer leaves of an empty thought when it cuts `assistant` and `<think>` out of a prompt."""


def prompt_of_words(prompt: str) -> tuple[Message, ...]:
    """The messages of a single-turn prompt; a prompt without role words is one message of the user.

    ChatML leaves `system`, `user` and `assistant` in lines of their own, Gemma `user` and `model`, Llama-3 words before
    empty lines. ReparseFailed where the words occur more often, so that turns and contents cannot be told apart. Line
    breaks at the end of the prompt go.
    """
    text = prompt.removesuffix(NO_THOUGHT_LEFT).rstrip("\n")
    if text.startswith(("system\n\n", "user\n\n")) and text.endswith("assistant") and not text.endswith("\nassistant"):
        return _split(prompt, text.removesuffix("assistant"), "system\n\n", "user\n\n", "assistant\n\n")
    if text.startswith(("system\n", "user\n")):
        content = text.removesuffix("\nassistant").removesuffix("\nmodel").rstrip("\n")
        return _split(prompt, content, "system\n", "\nuser\n", "\nassistant\n")
    return ({"role": "user", "content": prompt},)


def _split(prompt: str, text: str, system: str, user: str, assistant: str) -> tuple[Message, ...]:
    opening = user.lstrip("\n")
    given, parts = text.startswith(system), text.removeprefix(system).split(user)
    content = parts[-1] if given else text.removeprefix(opening)
    if (given and len(parts) != 2) or (not given and user in content) or assistant in content:
        raise ReparseFailed(
            f"the prompt {shown(prompt)} was decoded without special tokens, and the words for roles occur more than"
            " once: turns and contents cannot be told apart; input=messages takes it as one message of the user"
        )
    messages: list[Message] = [{"role": "system", "content": parts[0]}] if given else []
    tidied = [without_llama_preamble(one) for one in messages]
    kept = [without_qwen_defaults(one) for one in tidied if one is not None]
    return (*(one for one in kept if one is not None), {"role": "user", "content": content})
