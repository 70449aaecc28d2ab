"""Which template wrote a text, decided by how it begins, and the messages in it."""

from collections.abc import Sequence

from reward_service.errors import ReparseFailed
from reward_service.reparsing.deepseek import DeepSeekTemplate
from reward_service.reparsing.dialogue import Dialogue, Message, Template, Turn, shown
from reward_service.reparsing.marked import MarkedTemplate, without_llama_preamble, without_qwen_defaults
from reward_service.reparsing.marks import split_end, without_padding
from reward_service.reparsing.mistral import MistralTemplate

TEMPLATES: Sequence[Template] = (
    MarkedTemplate(
        "chatml",
        opener=r"<\|im_start\|>([A-Za-z_]+)(?:\n|\Z)",
        turn_ends=("<|im_end|>",),
        text_ends=("<|endoftext|>",),
        tidy=without_qwen_defaults,
    ),
    MarkedTemplate(
        "llama-3",
        opener=r"<\|start_header_id\|>([A-Za-z_]+)<\|end_header_id\|>(?:\n\n|\n?\Z)",
        turn_ends=("<|eot_id|>", "<|eom_id|>"),
        text_ends=("<|end_of_text|>",),
        roles={"ipython": "tool"},
        tidy=without_llama_preamble,
    ),
    MarkedTemplate(
        "gemma",
        opener=r"<start_of_turn>(user|model)(?:\n|\Z)",
        turn_ends=("<end_of_turn>",),
        text_ends=("<eos>",),
        roles={"model": "assistant"},
    ),
    MarkedTemplate(
        "gemma-4",
        opener=r"<\|turn>(system|user|model)(?:\n|\Z)",
        turn_ends=("<turn|>",),
        text_ends=("<eos>",),
        roles={"model": "assistant"},
    ),
    MarkedTemplate("zephyr", opener=r"<\|(system|user|assistant)\|>(?:\r?\n|\Z)", turn_ends=("</s>",), text_ends=()),
    MistralTemplate(),
    DeepSeekTemplate(),
)
KNOWN_TEMPLATES = tuple(template.name for template in TEMPLATES)


def reparse(text: str) -> Dialogue:
    """The messages of a rendered conversation; ReparseFailed says what was seen and which templates are known.

    Padding, BOS and EOS around it go. Without a known prompt the roles are what the text says: a policy that writes
    an end, a user turn and another assistant turn is read as three turns; `answered` takes the prompt and is not.
    """
    begun = without_padding(text)
    template = template_of(begun)
    if template is None:
        raise ReparseFailed(
            f"the text begins with {shown(text)} and has no markers of a known template"
            f" ({', '.join(KNOWN_TEMPLATES)}); were special tokens skipped when it was decoded?"
        )
    return dialogue(template, template.turns(begun))


def is_rendered(text: str) -> bool:
    """Whether the text has markers of a known template."""
    return any(template.is_in(text) for template in TEMPLATES)


def template_of(text: str) -> Template | None:
    """The family whose turn the text begins with; None without any markers, ReparseFailed when it is not clear."""
    begun = [template for template in TEMPLATES if template.begins(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        names = " and ".join(template.name for template in begun)
        raise ReparseFailed(f"the text begins with {shown(text)}, which may be {names}")
    seen = [template.name for template in TEMPLATES if template.is_in(text)]
    if seen:
        raise ReparseFailed(
            f"the text begins with {shown(text)} and not with a turn, though markers of {' and '.join(seen)}"
            " follow: it begins in the middle of a turn (cut at the left?), or has a part that is not understood"
        )
    return None


def dialogue(template: Template, turns: Sequence[Turn]) -> Dialogue:
    """The turns as a conversation to score: they must begin before the assistant speaks, and end with it."""
    if turns[-1].role != "assistant":
        raise ReparseFailed(
            f"the text ({template.name}) ends in a turn of the {turns[-1].role} and not of the assistant:"
            f" {shown(turns[-1].content)}"
        )
    if next(turn.role for turn in turns if turn.role != "system") == "assistant":
        raise ReparseFailed(
            f"the text ({template.name}) begins with a turn of the assistant; the user's before it is missing (cut at"
            " the left?)"
        )
    response = split_end(turns[-1].content, template.ends)
    messages = [_message(turn) for turn in turns[:-1]] + [{"role": "assistant", "content": response.text}]
    return Dialogue(tuple(template.tidied(messages)), response.is_finished, template.name)


def _message(turn: Turn) -> Message:
    return {"role": turn.role, "content": turn.content}
