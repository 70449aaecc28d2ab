"""The response behind a known prompt: no marker that the policy wrote becomes a turn."""

from reward_service.errors import ReparseFailed
from reward_service.reparsing.dialogue import Dialogue, Response, Template, shown
from reward_service.reparsing.marks import ENDS, split_end, without_padding, without_start
from reward_service.reparsing.reparse import TEMPLATES, dialogue, template_of


def answered(query: str, prompt: str) -> Dialogue:
    """The conversation of a `query` that is its `prompt`, rendered or plain, and the response to it.

    A rendered prompt gives its messages, a plain one a user message. ReparseFailed when the query does not begin with
    its prompt, or when the prompt does not end where the assistant's turn begins.
    """
    raw = _behind(query, prompt)
    begun = without_padding(prompt)
    template = template_of(begun)
    if template is None:
        response = split_end(raw, ENDS)
        messages = ({"role": "user", "content": without_start(prompt)}, {"role": "assistant", "content": response.text})
        return Dialogue(messages, response.is_finished, None)
    opened = template.turns(begun)[-1]
    if opened.role != "assistant" or split_end(opened.content, template.ends).is_finished:
        raise ReparseFailed(
            f"the prompt ({template.name}) does not end where the assistant's turn begins: ...{shown(prompt[-40:])}"
        )
    return dialogue(template, template.turns(begun, raw))


def response_of(query: str, prompt: str) -> Response:
    """The response of a `query` that begins with its `prompt`, without what ends it; ReparseFailed as in `answered`."""
    found = answered(query, prompt)
    return Response(found.messages[-1]["content"], found.is_finished)


def without_end(response: str, template: str | None = None) -> Response:
    """A response alone, without the padding and the end (of `template`, or of any) behind it."""
    known = {one.name: one for one in TEMPLATES}
    family: Template | None = known.get(template or "")
    return split_end(response, family.ends if family else ENDS)


def _behind(query: str, prompt: str) -> str:
    """What stands behind the prompt in the query; padding and BOS before either do not count."""
    begun, expected = without_start(query), without_start(prompt)
    if begun.startswith(expected):
        return begun[len(expected) :]
    at = _end_of(expected, begun)
    if at is None:
        raise ReparseFailed(
            f"the query does not begin with its prompt (cut at the left, or decoded without special tokens?): it begins"
            f" with {shown(query)}, the prompt with {shown(prompt)}"
        )
    return begun[at:]


def _end_of(prompt: str, query: str) -> int | None:
    """Where the prompt ends in a query that differs from it in blanks only: tokenizers write some at special tokens."""
    at = 0
    for character in prompt.rstrip():
        while not character.isspace() and at < len(query) and query[at].isspace():
            at += 1
        if not character.isspace():
            if query[at : at + 1] != character:
                return None
            at += 1
    blanks = prompt[len(prompt.rstrip()) :]
    return at + len(blanks) if query.startswith(blanks, at) else at
