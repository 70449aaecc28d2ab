"""What is known here of a model that computes elsewhere: tokenizer, labels, lengths; its weights need not be here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Item
from reward_service.engine.hosted.protocol import HostedProtocol, Outgoing
from reward_service.engine.loading import find_folder, load_tokenizer
from reward_service.engine.rendering import Rendered, Renderer
from reward_service.errors import NotReady, RenderingFailed, ServiceError, SpecialTokenInContent

DESCRIPTION_FILES = ("*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Description:
    """The model's files but the weights."""

    folder: Path
    tokenizer: Any
    labels: tuple[str, ...]
    pad_token_id: int | None
    positions: int | None

    def renderer(self, config: ClassifierConfig, max_tokens: int) -> Renderer:
        """Renders exactly as for the torch engine."""
        return Renderer(self.tokenizer, config, max_tokens=max_tokens, pad_token_id=self.pad_token_id)


def describe(config: ClassifierConfig, files: tuple[str, ...] = DESCRIPTION_FILES) -> Description:
    """Blocking. Raises NotReady with the model's name and the reason."""
    try:
        folder = find_folder(config, files)
        document = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        tokenizer = load_tokenizer(folder, config.trust_remote_code)
    except ServiceError:
        raise
    except Exception as error:  # whatever Transformers, the hub or the model's own code raises
        raise NotReady(
            f"model {config.name!r}: its config and tokenizer cannot be loaded from {config.source}: {error}"
        ) from error
    text = document.get_text_config()
    return Description(
        folder=folder,
        tokenizer=tokenizer,
        labels=tuple(document.id2label[index] for index in range(document.num_labels)),
        pad_token_id=getattr(text, "pad_token_id", None),
        positions=getattr(text, "max_position_embeddings", None),
    )


def pooled_prefix(rendered: Rendered) -> Rendered:
    """Without the tokens behind the pooled one (trailing pad tokens): in a decoder they change nothing, and a server
    that pools the literal last token would pool them."""
    return replace(rendered, ids=rendered.ids[: rendered.pooled_index + 1])


class Packing:
    """Makes of a rendered item what a protocol sends. Blocking, safe to call from several threads."""

    def __init__(self, protocol: HostedProtocol, description: Description, renderer: Renderer) -> None:
        self._protocol = protocol
        self._tokenizer = description.tokenizer
        self._renderer = renderer
        self._trims = protocol.pools_last and description.tokenizer.cls_token_id is None
        self._encode: Callable[[str], list[int]] = (
            self._as_always if protocol.adds_special_tokens else renderer.encode_text
        )

    def render(self, item: Item) -> "Sendable":
        """The item's tokens as they are sent."""
        rendered = self._renderer.render(item)
        sent = pooled_prefix(rendered).ids.tolist() if self._trims else rendered.ids.tolist()
        if rendered.spelled and self._protocol.sends_text:
            raise SpecialTokenInContent(
                "the conversation spells special tokens of the model, and its server takes no token ids but text, in"
                " which it would read them as special; valid: contents without the model's special tokens"
            )
        text = self._text(sent) if self._protocol.sends_text else ""
        return Sendable(
            rendered.ids,
            rendered.pooled_index,
            rendered.response_tokens,
            Outgoing(sent, text),
            spelled=rendered.spelled,
        )

    def _text(self, ids: list[int]) -> str:
        """A text that the server's tokenizer, being the same as ours, makes these very tokens of."""
        added = self._encode("")
        lead = next((n for n, (a, b) in enumerate(zip(added, ids, strict=False)) if a != b), min(len(added), len(ids)))
        trail = len(added) - lead if ids[len(ids) - len(added) + lead :] == added[lead:] else 0
        for inner in (ids, ids[lead : len(ids) - trail], ids[lead:]):
            text = str(self._tokenizer.decode(inner, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            if self._encode(text) == ids:
                return text
        raise RenderingFailed(
            f"no text stands for the conversation's {len(ids)} tokens, and the server takes no token ids"
        )

    def _as_always(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"])


@dataclass(frozen=True, slots=True)
class Sendable(Rendered):
    """A rendered item and what is sent of it."""

    outgoing: Outgoing
