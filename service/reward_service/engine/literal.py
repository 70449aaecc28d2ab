"""A tokenizer that reads special tokens only where it is told, so that what else spells one is plain text."""

import secrets
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tokenizers import AddedToken, Tokenizer

from reward_service.engine.contents import Span, added_tokens


class NotLiteral(Exception):
    """The tokens of a text cannot be had with its spellings as plain text; says why."""


@dataclass(frozen=True, slots=True)
class LiteralEncoding:
    """Token ids of a text, with its own characters' places; `ends` and `shifts` are those of what was replaced."""

    ids: list[int]
    encoding: Any
    ends: Sequence[int]
    shifts: Sequence[int]

    def __getitem__(self, key: str) -> list[int]:
        """The ids, whatever the key."""
        return self.ids

    def char_to_token(self, batch_or_char_index: int) -> int | None:
        """The token that holds a character, which is none of a special token's."""
        shift = self.shifts[bisect_right(self.ends, batch_or_char_index)]
        found: int | None = self.encoding.char_to_token(batch_or_char_index + shift)
        return found


class LiteralTokenizer:
    """Shares model, normalizer and pre-tokenizer with a fast tokenizer of Transformers; safe from several threads.

    Its reserved tokens have names that nobody can guess, and stand in the text in place of those that the template
    wrote. All else about them (the blanks that they take, the parts that they cut a text into) is as it was.
    """

    def __init__(self, tokenizer: Any, reserved: frozenset[str]) -> None:
        origin = tokenizer.backend_tokenizer
        self._backend = _without_added_tokens(origin)
        secret = secrets.token_hex(16)
        self._names: dict[str, str] = {}
        added = {}
        for number, token in enumerate(added_tokens(tokenizer)):
            name = token.content
            if name in reserved:  # its ends stay, since some tokens look at what stands beside them
                name = self._names[token.content] = f"{name[0]}{secret}{number:06}{name[-1]}"
            added[name] = token
        self._backend.add_tokens([_renamed(token, name) for name, token in added.items()])
        token_id = self._backend.token_to_id
        self._ids = {token_id(name): origin.token_to_id(token.content) for name, token in added.items()}
        if any(origin.model.id_to_token(self._backend.token_to_id(name)) for name in self._names.values()):
            raise NotLiteral("the tokenizer's vocabulary has gaps")
        self._own = {self._backend.token_to_id(name) for name in self._names.values()}
        self._reserved_ids = {origin.token_to_id(name) for name in reserved - _unknown(tokenizer)}

    def __call__(self, text: str, spans: Sequence[Span]) -> LiteralEncoding:
        """The tokens of a text that has special tokens at `spans` and nowhere else; raises NotLiteral."""
        names = [self._names[span.token] for span in spans]
        starts, ends = [span.start for span in spans], [span.end for span in spans]
        plain = [text[start:end] for start, end in zip([0, *ends], [*starts, len(text)], strict=True)]
        renamed = "".join(f"{before}{name}" for before, name in zip(plain, [*names, ""], strict=True))
        encoding = self._backend.encode(renamed, add_special_tokens=False)
        self._check(encoding.ids, len(spans))
        grown = (len(name) - len(span.token) for name, span in zip(names, spans, strict=True))
        ids = [self._ids.get(one, one) for one in encoding.ids]
        return LiteralEncoding(ids, encoding, ends, [0, *accumulate(grown)])

    def _check(self, ids: Sequence[int], spans: int) -> None:
        """As many reserved tokens as there are spans, and none from plain text."""
        if sum(one in self._own for one in ids) != spans:
            raise NotLiteral("the tokenizer does not read every special token that the template writes")
        if any(one in self._reserved_ids and one not in self._ids for one in ids):
            raise NotLiteral("the tokenizer makes a special token of plain text")


def made_of_text(tokenizer: Any, reserved: frozenset[str]) -> dict[str, int]:
    """The reserved tokens that a tokenizer's model makes of plain text, and their ids.

    It makes them also of what its normalizer turns into them, and that is nothing that can be sought.
    """
    if not getattr(tokenizer, "is_fast", False):
        return {}
    origin = tokenizer.backend_tokenizer
    plain, ids = _without_added_tokens(origin), {name: origin.token_to_id(name) for name in reserved}
    tried = {name: plain.encode(f"{name} a{name}a {name}", add_special_tokens=False).ids for name in ids}
    return {name: one for name, one in ids.items() if one in tried[name] and name not in _unknown(tokenizer)}


def _unknown(tokenizer: Any) -> set[Any]:
    """What stands for a text that the tokenizer does not know, under either of its names."""
    return {tokenizer.unk_token, getattr(tokenizer.backend_tokenizer.model, "unk_token", None)}


def _without_added_tokens(origin: Any) -> Any:
    made = Tokenizer(origin.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if getattr(origin, part) is not None:
            setattr(made, part, getattr(origin, part))
    return made


def _renamed(token: Any, name: str) -> AddedToken:
    flags = {flag: getattr(token, flag) for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    return AddedToken(name, **flags)
