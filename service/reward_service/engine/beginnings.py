"""Where a rendered text may be cut so that its parts, tokenized alone, give the tokens of the whole."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FROM_CHARACTERS = 256
"""Beginnings shorter than this cost less to tokenize again than to look up."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The special tokens before which a text may be cut; none where that is not sure to be exact."""

    marks: tuple[str, ...] = ()

    def split(self, text: str, before: int) -> tuple[str, str]:
        """The text up to its last mark that ends before `before`, and the rest; no beginning where it is short."""
        cut = max((text.rfind(mark, 0, max(before, 0)) for mark in self.marks), default=-1)
        return (text[:cut], text[cut:]) if cut >= FROM_CHARACTERS else ("", text)


def cuts_of(tokenizer: Any, rendered: str) -> Cuts:
    """The marks of a tokenizer that occur in a rendered conversation.

    A fast tokenizer first cuts a text at its special tokens and then treats the pieces alone, so a cut at one changes
    nothing, provided that nothing else can reach across: a token that takes the blanks to its left, one that is sought
    in normalized text, one that overlaps with another.
    """
    if not getattr(tokenizer, "is_fast", False) or getattr(tokenizer, "split_special_tokens", False):
        return Cuts()
    added = list(tokenizer.added_tokens_decoder.values())
    contents = [token.content for token in added]
    plain = [token for token in added if token.special and not (token.normalized or token.lstrip or token.single_word)]
    return Cuts(
        tuple(one.content for one in plain if one.content in rendered and not _is_reached_into(one.content, contents))
    )


def _is_reached_into(mark: str, contents: Iterable[str]) -> bool:
    """Whether some token may begin before the mark and end inside or behind it."""
    for content in contents:
        for start in range(1, len(content)):
            end = content[start:]
            if end.startswith(mark) or mark.startswith(end):
                return True
    return False
