"""Conversation to token ids, exactly as the model was trained: template, BOS, truncation, reasoning, cut responses."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reward_service.config import ClassifierConfig
from reward_service.engine.beginnings import cuts_of
from reward_service.engine.engine import Item, Message
from reward_service.engine.spellings import Written, spellings_of
from reward_service.errors import ConversationTooLong, RenderingFailed, ServiceError, UnfinishedResponse

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
Key = tuple[bytes, int]
MARK = "<<END-OF-RESPONSE>> "
SAMPLE = "As text:  two blanks,\n\ttabs, 1234 digits, naïve Ünïcode\u0301, 漢字, 👩‍👧 and an end.\n"
KEPT_BEGINNINGS = 256
LONGEST_KEPT = 65_536
"""Characters of a beginning; longer ones are tokenized each time, so that the kept ones stay under 64 MB."""
MAX_CHARACTERS_PER_TOKEN = 64
"""No real text has longer tokens on average: more characters than this allows are too long without being counted."""


class Encoding(Protocol):
    """What a tokenizer answers; `char_to_token` raises ValueError on tokenizers written in Python."""

    def __getitem__(self, key: str) -> list[int]:
        """`input_ids`."""

    def char_to_token(self, batch_or_char_index: int) -> int | None:
        """The token that holds a character."""


class Tokenizer(Protocol):
    """What is used of a Transformers tokenizer."""

    chat_template: Any
    bos_token: str | None
    cls_token: str | None
    bos_token_id: int | None
    cls_token_id: int | None

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tools: list[dict[str, Any]] | None, tokenize: bool
    ) -> str:
        """The rendered conversation."""

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Encoding:
        """The text's tokens."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of one item, and which of them is pooled; `spelled` where contents spell special tokens that were read
    as plain text."""

    ids: NDArray[np.int32]
    pooled_index: int
    response_tokens: int | None
    spelled: bool = field(default=False, kw_only=True)

    @property
    def tokens(self) -> int:
        """How many tokens the device sees."""
        return len(self.ids)

    @property
    def key(self) -> Key:
        """What decides its outputs."""
        return (self.ids.tobytes(), self.pooled_index)


def pooled_index(ids: NDArray[np.int32], pad_token_id: int | None) -> int:
    """Transformers' rule: the rightmost token that is not the pad token (so it skips a final EOS that is also the pad).

    Without a pad token it is the last token; when every token is the pad token, the first.
    """
    if pad_token_id is None:
        return len(ids) - 1
    kept = np.flatnonzero(ids != pad_token_id)
    return int(kept[-1]) if len(kept) else 0


def without_reasoning(content: str) -> str:
    """The response after its leading `<think>` part, also where the template opened the part or nothing closed it."""
    head, closed, rest = content.partition("</think>")
    opened = head.lstrip().startswith("<think>")
    if closed and (opened or "<think>" not in head):
        return rest.lstrip()
    return "" if opened else content


class Renderer:
    """Renders the items of one model. Blocking, safe to call from several threads."""

    def __init__(
        self, tokenizer: Tokenizer, config: ClassifierConfig, *, max_tokens: int, pad_token_id: int | None
    ) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._max_tokens = max_tokens
        self._pad_token_id = pad_token_id
        rendered = self._probe()
        self._end_of_turn = None if rendered is None else re.sub(r"^ ", "", rendered.rpartition(MARK.strip())[2])
        self._cuts = cuts_of(tokenizer, rendered or "")
        self._spellings = spellings_of(tokenizer, config, (rendered or MARK).replace(MARK.strip(), SAMPLE))
        self._tokens_of_beginning = functools.lru_cache(KEPT_BEGINNINGS)(self._tokens_of)

    def render(self, item: Item) -> Rendered:
        """The item's tokens; raises RenderingFailed, ConversationTooLong, UnfinishedResponse, SpecialTokenInContent."""
        unfinished = item.finish_reason == "length"
        if unfinished and self._config.on_unfinished == "error":
            raise UnfinishedResponse(
                "the response was cut at the length limit (finish_reason 'length'), which this model's config refuses"
            )
        try:
            return self._fit(*self._encode(item, unfinished))
        except ServiceError:
            raise
        except Exception as error:  # a template is the model author's code: it may raise anything
            raise RenderingFailed(f"the chat template or tokenizer refused the conversation: {error}") from error

    def _encode(self, item: Item, unfinished: bool) -> tuple[list[int], int | None, bool]:
        """Its ids, the tokens of its response, and whether special tokens that contents spell are read as text."""
        if item.messages is None:
            self._refuse_hopeless(item.text or "")
            return self.encode_text(item.text or ""), None, False
        if not item.messages:
            raise RenderingFailed("the conversation has no messages")
        if self._tokenizer.chat_template is None:
            raise RenderingFailed("the model's tokenizer has no chat template: send `text` that is already rendered")
        messages = self._prepare(item.messages)
        write = self._up_to_mark if unfinished else self._apply
        text = write(messages, item.tools)
        self._refuse_hopeless(text)
        tail = "" if unfinished else self._end_of_turn
        beginning, rest = self._cuts.split(text, len(text) - len(messages[-1].get("content") or "") - len(tail or ""))
        encoding = self._tokenized(rest)
        ids = [*self._beginning(beginning), *encoding["input_ids"]]
        written = Written(text, messages, item.tools, write)
        if self._spellings.may_be_in(written, ids):
            literal = self._spellings.read(written, ids)
            if literal is not None:
                return literal["input_ids"], self._count_response(literal, text, messages[-1], tail), True
        return ids, self._count_response(encoding, rest, messages[-1], tail), False

    def _tokenized(self, text: str) -> Encoding:
        """Templates write the BOS themselves, so the tokenizer adds none, as in apply_chat_template(tokenize=True)."""
        return self._tokenizer(text, add_special_tokens=False, verbose=False)

    def _beginning(self, text: str) -> list[int]:
        if len(text) > LONGEST_KEPT:
            return self._tokenized(text)["input_ids"]
        found: list[int] = self._tokens_of_beginning(text).tolist() if text else []
        return found

    def _tokens_of(self, beginning: str) -> NDArray[np.int32]:
        return np.asarray(self._tokenized(beginning)["input_ids"], np.int32)

    def _refuse_hopeless(self, text: str) -> None:
        """A text that cannot fit takes no time to be tokenized, unless its end is what is wanted."""
        if self._config.on_too_long == "error" and len(text) > self._max_tokens * MAX_CHARACTERS_PER_TOKEN:
            raise ConversationTooLong(
                f"the conversation has {len(text)} characters, more than the {self._max_tokens} tokens that the model"
                " reads can hold"
            )

    def encode_text(self, text: str) -> list[int]:
        """The tokens of a text that is rendered already; a BOS or CLS that it starts with is not added again."""
        starts = tuple(token for token in (self._tokenizer.bos_token, self._tokenizer.cls_token) if token)
        add = not (starts and text.startswith(starts))
        return list(self._tokenizer(text, add_special_tokens=add, verbose=False)["input_ids"])

    def _prepare(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        prepared = [dict(message) for message in messages]
        if self._config.reasoning == "strip" and prepared[-1].get("role") == "assistant":
            response = {key: value for key, value in prepared[-1].items() if key not in REASONING_FIELDS}
            if isinstance(response.get("content"), str):
                response["content"] = without_reasoning(response["content"])
            prepared[-1] = response
        return prepared

    def _apply(self, messages: list[dict[str, Any]], tools: Any) -> str:
        return self._tokenizer.apply_chat_template(messages, tools=list(tools) if tools else None, tokenize=False)

    def _up_to_mark(self, messages: list[dict[str, Any]], tools: Any) -> str:
        """The rendered conversation without the end-of-turn behind its last message.

        Cuts where Transformers' `continue_final_message` cuts, but also where a template rewrites the message (thinking
        templates do), which that option refuses.
        """
        last = messages[-1]
        marked = [*messages[:-1], {**last, "content": (last.get("content") or "") + MARK}]
        head, found, tail = self._apply(marked, tools).rpartition(MARK.strip())
        if not found:
            raise RenderingFailed("the chat template leaves out the content of the last message")
        return head if tail.startswith(" ") else head.rstrip()  # no blank behind the mark: the template trims

    def _probe(self) -> str | None:
        """A short conversation as the template writes it; None without a template, or one with demands of its own."""
        try:
            messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": MARK}]
            return self._apply(messages, None)
        except Exception:
            return None

    def _count_response(self, encoding: Encoding, text: str, message: Message, tail: str | None) -> int | None:
        written = message.get("content") or ""
        if not written.strip():
            return 0
        shown = [one for one in (written, written.strip()) if tail is not None and text.endswith(one + tail)]
        if tail is None or not shown:
            return None
        content, end = shown[0], len(text) - len(tail)
        try:
            first, last = encoding.char_to_token(end - len(content)), encoding.char_to_token(end - 1)
        except ValueError:
            return None
        return None if first is None or last is None else last - first + 1

    def _fit(self, ids: list[int], response_tokens: int | None, spelled: bool) -> Rendered:
        if not ids:
            raise RenderingFailed("the conversation renders to no tokens")
        if len(ids) > self._max_tokens:
            ids = self._shorten(ids)
            response_tokens = None if response_tokens is None else min(response_tokens, len(ids))
        row = np.asarray(ids, dtype=np.int32)
        return Rendered(row, pooled_index(row, self._pad_token_id), response_tokens, spelled=spelled)

    def _shorten(self, ids: list[int]) -> list[int]:
        """Drops the oldest tokens; a leading BOS (or CLS) stays, since models are trained to see it first."""
        if self._config.on_too_long == "error":
            raise ConversationTooLong(f"the conversation has {len(ids)} tokens and the model reads {self._max_tokens}")
        starts = {self._tokenizer.bos_token_id, self._tokenizer.cls_token_id} - {None}
        kept = ids[:1] if ids[0] in starts and self._max_tokens > 1 else []
        return kept + ids[len(ids) - self._max_tokens + len(kept) :]
