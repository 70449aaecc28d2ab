"""The tokens that are the chat template's to write, and where the contents of a conversation spell them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

PRIVATE_USE = range(0xE000, 0xF900)
AT_THE_END = r"(?:[\s▁]|\\[fnrt]|\\u00[01].)*(?:\"|\Z)"
"""What ends a text, alone or as JSON, as it is or normalized."""
LONGEST_KEY = 40
"""Characters of a key that an error quotes."""
REASONING_MARKS = ("<think>", "</think>")
"""A response writes its reasoning part itself, so these are contents, whatever the tokenizer says of them."""


def reserved_tokens(tokenizer: Any, rendered: str) -> list[Any]:
    """The added tokens that only the template may write: special ones, and its turn marks that are not called special.

    `rendered` is a short conversation as the template writes it: what stands in brackets there marks a turn. Words and
    single characters, which some tokenizers pad with, are contents.
    """
    splits = getattr(tokenizer, "split_special_tokens", False)
    return [
        token
        for token in added_tokens(tokenizer)
        if token.content not in REASONING_MARKS
        and ((token.special and not splits) or (_is_bracketed(token.content) and token.content in rendered))
        and not (len(token.content) == 1 or token.content.isalnum() or token.content.isspace())
    ]


def added_tokens(tokenizer: Any) -> list[Any]:
    """The tokens that a tokenizer seeks in a text before all else, by id."""
    return [token for _, token in sorted(getattr(tokenizer, "added_tokens_decoder", {}).items())]


def _is_bracketed(content: str) -> bool:
    return content[:1] in "<[{" and content[-1:] in ">]}"


@dataclass(frozen=True, slots=True)
class Span:
    """Where a reserved token stands in a text."""

    start: int
    end: int
    token: str


class Reserved:
    """Finds reserved tokens in contents. Safe to use from several threads."""

    def __init__(self, tokens: Sequence[Any], added: Sequence[Any], normalize: Callable[[str], str] | None) -> None:
        contents = [token.content for token in tokens]
        self.tokens = frozenset(contents)
        self._firsts = sorted({content[0] for content in contents})
        self._longest = max(map(len, contents), default=0)
        self._spelled = _any_of(contents)
        as_json = [_as_json(content)[1:-1] for content in contents]
        self._sought = _any_of([*contents, *as_json], AT_THE_END)
        self._begun = frozenset(content[:length] for content in contents for length in range(1, len(content)))
        self._added = _any_of([token.content for token in added])
        sought = [token.content for token in tokens if token.normalized] if normalize else []
        self._normalize = normalize if sought else None
        normalized = [normalize(content).strip("▁ ") for content in sought] if normalize else []
        self._normalized = _any_of(normalized, AT_THE_END)

    def may_be_in(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> bool:
        """Whether some string in messages or tools spells a token, or begins one at its end; quick where none does."""
        if not self.tokens:
            return False
        values = [value for message in messages for value in message.values()]
        if tools:
            values.append(tools)
        try:
            text = '"'.join([value if type(value) is str else _as_json(value) for value in values])
        except ValueError:  # nested too deeply, or half a surrogate pair: not quick, then
            return True
        for first in self._firsts:
            if first in text and self._sought.search(text):
                return True
        return self._normalize is not None and self._normalized.search(self._normalize(text)) is not None

    def _begun_in(self, text: str) -> int:
        """How many characters at the text's end begin a token; blanks behind them, which a template trims, aside."""
        tail = text.rstrip()[-self._longest :]
        return next((length for length in range(len(tail), 0, -1) if tail[-length:] in self._begun), 0)

    def broken(self, value: Any, letter: str) -> Any:
        """The same messages or tools with `letter` for each character of what spells or begins a token."""
        if isinstance(value, str):
            return self._broken_text(value, letter)
        if isinstance(value, Mapping):
            return {self.broken(key, letter): self.broken(one, letter) for key, one in value.items()}
        return [self.broken(one, letter) for one in value] if isinstance(value, Sequence) else value

    def _broken_text(self, text: str, letter: str) -> str:
        whole = self._spelled.sub(lambda found: letter * len(found[0]), text)
        end = len(whole.rstrip())
        begun = self._begun_in(whole)
        return whole[: end - begun] + letter * begun + whole[end:]

    def same_in(self, text: str, broken: str) -> bool:
        """Whether a text has no more tokens than with broken contents: then what they spell has not reached it."""
        tokens = [[span.token for span in self.spans(one)] for one in (text, broken)]
        return self._normalize is None and tokens[0] == tokens[1]

    def spans(self, text: str) -> list[Span]:
        """Every token of a text as a tokenizer finds them, whoever wrote it."""
        found = self._added.finditer(text)
        return [Span(one.start(), one.end(), one[0]) for one in found if one[0] in self.tokens]

    def place(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> tuple[str, str]:
        """The first field that spells a token, and the token."""
        for path, text in (*_strings(messages, "messages"), *_strings(tools, "tools")):
            if found := self._spelled.search(text):
                return path, found[0]
        return "messages", "in parts, or in another form"


def unused_letter(text: str) -> str:
    """A character of the private use area that the text has not; ValueError if it has them all."""
    found = next((chr(code) for code in PRIVATE_USE if chr(code) not in text), None)
    if found is None:
        raise ValueError(f"it holds all {len(PRIVATE_USE)} characters of Unicode's private use area")
    return found


def differ_only_in(letter: str, text: str, broken: str) -> bool:
    """Whether two texts are the same but where the second has the letter."""
    at = 0
    for part in broken.split(letter):
        if not text.startswith(part, at):
            return False
        at += len(part) + 1
    return at == len(text) + 1


def _any_of(contents: Sequence[str], begun: str | None = None) -> "re.Pattern[str]":
    """The leftmost and then longest, as tokenizers seek; nothing where there are none.

    With `begun`, also what begins one before that pattern.
    """
    return re.compile("|".join(_branches(list(filter(None, contents)), begun)) or "(?!)")


def _branches(contents: Sequence[str], begun: str | None) -> list[str]:
    """Patterns of the contents by first character: however many there are, few are tried at each place of a text."""
    rests: dict[str, list[str]] = {}
    for content in contents:
        rests.setdefault(content[0], []).append(content[1:])
    return [re.escape(first) + _rest(rest, begun) for first, rest in sorted(rests.items())]


def _rest(contents: Sequence[str], begun: str | None) -> str:
    branches = _branches(list(filter(None, contents)), begun)
    if "" in contents:
        return f"(?:{'|'.join(branches)})?" if branches else ""
    tried = [*branches, begun] if begun else branches
    return f"(?:{'|'.join(tried)})" if len(tried) > 1 else tried[0]


def _as_json(value: Any) -> str:
    return to_json(value, fallback=str).decode()


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string with the path to it, keys too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield f"{path} (a key)", str(key)
            yield from _strings(one, f"{path}.{_shown(str(key))}")
    elif isinstance(value, Sequence):
        for index, one in enumerate(value):
            yield from _strings(one, f"{path}[{index}]")


def _shown(key: str) -> str:
    return key if key.isidentifier() and len(key) <= LONGEST_KEY else repr(key[:LONGEST_KEY])
