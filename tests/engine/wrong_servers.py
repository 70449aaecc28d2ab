"""A server of a model folder by Transformers alone, and the ways to get it wrong: the parity check must name each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.errors import EngineFailed, RenderingFailed

Twist = Callable[[torch.Tensor], torch.Tensor]


class Server:
    """Scores each conversation alone, as Transformers does. Subclasses do one thing wrong."""

    def __init__(
        self, folder: Path, *, dtype: torch.dtype = torch.float32, twist: Twist = lambda logits: logits
    ) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
        self.model.score.float()
        self.model.score.register_forward_pre_hook(lambda _, args: tuple(arg.float() for arg in args))
        self.twist = twist

    async def score(
        self,
        items: Sequence[Item],
        *,
        priority: Priority,
        deadline: float,
        admitted: bool = False,
        use_cache: bool = True,
    ) -> list[Estimate | ItemError]:
        rows = [self.ids(item) for item in items]
        with torch.inference_mode():
            logits = self.twist(self.logits(rows))
        return [Estimate(one.double().numpy(), len(row), len(row)) for one, row in zip(logits, rows, strict=True)]

    def ids(self, item: Item) -> list[int]:
        messages = [dict(message) for message in item.messages or ()]
        return list(self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        return torch.cat([self.model(input_ids=torch.tensor([row])).logits for row in rows])

    def at_last(self, rows: Sequence[list[int]]) -> torch.Tensor:
        return torch.cat([self.model.score(self.model.model(input_ids=torch.tensor([row]))[0][:, -1]) for row in rows])


class DoubledBos(Server):
    def ids(self, item: Item) -> list[int]:
        return [self.tokenizer.bos_token_id, *super().ids(item)]


class DroppedTemplate(Server):
    def ids(self, item: Item) -> list[int]:
        text = "\n".join(message["content"] for message in item.messages or ())
        return list(self.tokenizer(text)["input_ids"])


class OtherTemplate(Server):
    """Of every second conversation, a token is another, and there is one more of it in some."""

    def ids(self, item: Item) -> list[int]:
        ids = super().ids(item)
        return [*ids[:3], *ids[4:]] if len(ids) % 2 else [*ids, ids[-1]]


class TrailingPad(Server):
    """Pads, pools the pad, and does not count it."""

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        return self.at_last([[*row, self.tokenizer.pad_token_id] for row in rows])


class LiteralLast(Server):
    """Pools the last token, also where Transformers passes over it."""

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        return self.at_last(rows)


class Padded(Server):
    """Pads a batch, and attends to the padding and pools it."""

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        longest = max(len(row) for row in rows)
        return self.at_last([row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in rows])


class Swapped(Server):
    """Answers a batch in the wrong order."""

    def logits(self, rows: Sequence[list[int]]) -> torch.Tensor:
        return super().logits(rows).flip(0)


class Failing(Server):
    """Has no score for long conversations."""

    async def score(self, items: Sequence[Item], **options: Any) -> list[Estimate | ItemError]:
        found = await super().score(items, **options)
        failed = ItemError(EngineFailed("the device failed"))
        return [failed if one.tokens > 100 else one for one in found if isinstance(one, Estimate)]


class Remote(Server):
    """Sees the template refuse a system message only where it is rendered."""

    async def score(self, items: Sequence[Item], **options: Any) -> list[Estimate | ItemError]:
        refused = [any(message["role"] == "system" for message in item.messages or ()) for item in items]
        taken = iter(await super().score([i for i, no in zip(items, refused, strict=True) if not no], **options))
        return [ItemError(RenderingFailed("no system role")) if no else next(taken) for no in refused]


class Ragged(Server):
    """Gives some conversations an output more."""

    async def score(self, items: Sequence[Item], **options: Any) -> list[Estimate | ItemError]:
        found = await super().score(items, **options)
        return [
            Estimate(np.append(one.outputs, 1.0), one.tokens, 0) if place % 2 else one
            for place, one in enumerate(found)
            if isinstance(one, Estimate)
        ]
