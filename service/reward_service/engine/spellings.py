"""What becomes of contents that spell the model's special tokens: plain text, an error, or special tokens."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reward_service.config import ClassifierConfig
from reward_service.engine.contents import Reserved, added_tokens, differ_only_in, reserved_tokens, unused_letter
from reward_service.engine.literal import LiteralEncoding, LiteralTokenizer, NotLiteral, made_of_text
from reward_service.errors import SpecialTokenInContent

log = logging.getLogger(__name__)

Messages = list[dict[str, Any]]
Write = Callable[[Messages, Any], str]


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation, the text that the chat template makes of it, and `write`, which makes it."""

    text: str
    messages: Messages
    tools: Any
    write: Write


class Spellings:
    """Reads a conversation as the configuration says. Blocking, safe to call from several threads."""

    def __init__(
        self,
        config: ClassifierConfig,
        reserved: Reserved,
        literal: LiteralTokenizer | str,
        made_of_text: Mapping[str, int],
    ) -> None:
        self._config = config
        self._reserved = reserved
        self._literal = literal
        self._made_of_text = made_of_text
        self._made_ids = frozenset(made_of_text.values())
        self._told = False

    def may_be_in(self, written: Written, parsed: list[int]) -> bool:
        """Whether `read` has anything to do; quick."""
        return self._reserved.may_be_in(written.messages, written.tools) or self._makes_more(written.text, parsed)

    def read(self, written: Written, parsed: list[int]) -> LiteralEncoding | None:
        """The conversation with what its contents spell as plain text; None if `parsed`, its tokens, are just those.

        Raises SpecialTokenInContent where that is to be an error, or where it cannot be done exactly.
        """
        letter = unused_letter(written.text)
        messages, tools = (self._reserved.broken(one, letter) for one in (written.messages, written.tools))
        broken = written.write(messages, tools)
        if self._reserved.same_in(written.text, broken) and not self._makes_more(broken, parsed):
            return None
        try:
            encoding = self._encoding(written.text, broken, letter)
        except NotLiteral as reason:
            raise self._refusal(written, f"cannot be read as plain text exactly, since {reason}") from reason
        if encoding.ids == parsed:
            return None
        if self._config.special_tokens_in_content == "error":
            raise self._refusal(written, "is refused by this model's config")
        self._tell(written)
        return encoding

    def _makes_more(self, text: str, parsed: list[int]) -> bool:
        """Whether the tokenizer's model has made special tokens of plain text in another form."""
        if not self._made_ids:
            return False
        spans = sum(span.token in self._made_of_text for span in self._reserved.spans(text))
        return sum(one in self._made_ids for one in parsed) > spans

    def _encoding(self, text: str, broken: str, letter: str) -> LiteralEncoding:
        if isinstance(self._literal, str):
            raise NotLiteral(self._literal)
        if not differ_only_in(letter, text, broken):
            raise NotLiteral("the chat template rewrites it")
        return self._literal(text, self._reserved.spans(broken))

    def _refusal(self, written: Written, what: str) -> SpecialTokenInContent:
        path, token = self._reserved.place(written.messages, written.tools)
        return SpecialTokenInContent(
            f"{path} spells a special token of model {self._config.name!r} ({token}), which {what}; valid: contents"
            " without the model's special tokens"
        )

    def _tell(self, written: Written) -> None:
        """Once for each model: the metric counts them all."""
        if not self._told:
            self._told = True
            path, token = self._reserved.place(written.messages, written.tools)
            log.warning(
                "model %s: %s spells a special token (%s), which is read as plain text; such conversations are counted"
                " in reward_service_spelled_conversations_total",
                *(self._config.name, path, token),
            )


def spellings_of(tokenizer: Any, config: ClassifierConfig, rendered: str) -> Spellings:
    """How contents are read; `rendered` is a short conversation as the template writes it, to try it out."""
    if config.special_tokens_in_content == "parse":
        return Spellings(config, Reserved([], [], None), "it is parsed", {})
    tokens = reserved_tokens(tokenizer, rendered)
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    reserved = Reserved(tokens, added_tokens(tokenizer), None if normalizer is None else normalizer.normalize_str)
    literal = _literal_tokenizer(tokenizer, reserved, rendered)
    if tokens and isinstance(literal, str):
        log.warning("model %s: a content that spells one of its special tokens is refused: %s", config.name, literal)
    return Spellings(config, reserved, literal, made_of_text(tokenizer, reserved.tokens))


def _literal_tokenizer(tokenizer: Any, reserved: Reserved, rendered: str) -> LiteralTokenizer | str:
    """One that gives the tokenizer's own tokens where the template alone writes special ones, or why there is none."""
    if not getattr(tokenizer, "is_fast", False):
        return "the tokenizer is written in Python"
    try:
        own = tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"]
        literal = LiteralTokenizer(tokenizer, reserved.tokens)
        same = literal(rendered, reserved.spans(rendered)).ids == own
    except Exception as reason:  # NotLiteral, or whatever a tokenizer raises for a text that is none of its callers'
        return str(reason)
    return literal if same else "the tokenizer does more than its backend"
