"""The special tokens around turns: padding, beginnings of text, and ends."""

import re
from collections.abc import Iterable, Sequence

from reward_service.reparsing.dialogue import Response

BEGINNINGS = ("<s>", "<|begin_of_text|>", "<bos>", "<｜begin▁of▁sentence｜>")
PADDING = ("<pad>", "[PAD]", "<|pad|>", "<unk>", "<|finetune_right_pad_id|>", "<｜▁pad▁｜>")
ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<｜end▁of▁sentence｜>",
)


def any_of(marks: Iterable[str]) -> str:
    """A pattern for one of these strings."""
    return f"(?:{'|'.join(map(re.escape, marks))})"


START = rf"\s*+(?:{any_of(BEGINNINGS)}\s*+)*+"
"""A pattern for the BOS, which some write twice and some not at all."""
_PADDED = re.compile(rf"(?:(?: *+{any_of((*PADDING, *ENDS))})++(?!\n))?(?:\s*+(?={any_of(BEGINNINGS)}))?")
_STARTED = re.compile(rf"{any_of(BEGINNINGS)}*")
_BEHIND = re.compile(rf"(?:\s*+{any_of(mark[::-1] for mark in (*PADDING, *ENDS))})*+")


def without_padding(text: str) -> str:
    """The text from its BOS on. An EOS may be padding too; before a line break it ends a turn instead."""
    return _PADDED.sub("", text, 1)


def without_start(text: str) -> str:
    """The text behind padding and BOS."""
    return _STARTED.sub("", without_padding(text), 1)


def split_end(text: str, ends: Sequence[str]) -> Response:
    """The text up to the run of `ends` and padding at its end; only one of `ends` makes it finished.

    Read from the right, so that what the policy wrote before it is left alone, an end or padding of another family too.
    """
    found = _BEHIND.match(text[::-1])
    start = len(text) - (found.end() if found else 0)
    first = re.compile(any_of((*PADDING, *ends))).search(text, start)
    cut = first.start() if first else len(text)
    return Response(text[:cut], is_finished=any(end in text[cut:] for end in ends))
