"""What Transformers says of conversations: a fresh tokenizer, plain forward passes of one conversation on the CPU.

Nothing here goes through the engine's own rendering, batches or heads.
"""

import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from reward_service.engine.engine import Item
from reward_service.engine.fingerprint import weight_files
from reward_service.engine.heads import body_of

Ids = Sequence[int]
Scores = NDArray[np.float64]
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class ReferenceFailed(Exception):
    """Transformers cannot tokenize or compute what an engine could."""


def reference_ids(folder: Path, items: Sequence[Item], *, trust_remote_code: bool = False) -> list[Ids]:
    """Token ids of each item, by `apply_chat_template(tokenize=True)` or, for a text, the tokenizer itself."""
    with _failures():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        return [_ids(tokenizer, item) for item in items]


def reference_scores(
    folder: Path, rows: Sequence[Ids], *, dtype: str = "float32", trust_remote_code: bool = False
) -> Scores:
    """(rows, outputs) of the model's own forward, one row of token ids at a time; the model is freed again."""
    with _failures(), _loaded(folder, dtype, trust_remote_code) as model:
        return _each(rows, lambda ids: model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0])


def last_token_scores(folder: Path, rows: Sequence[Ids], *, trust_remote_code: bool = False) -> Scores | None:
    """(rows, outputs) with the literal last token pooled, whatever it is; None for a model without such a head."""
    with _failures(), _loaded(folder, "float32", trust_remote_code) as model:
        body, head = body_of(model), getattr(model, "score", None)
        if body is None or head is None:
            return None
        return _each(rows, lambda ids: head(body(input_ids=ids).last_hidden_state[0, -1]))


def pad_token_id(folder: Path) -> int | None:
    """The id that the model's config calls padding."""
    document = json.loads((folder / "config.json").read_bytes())
    found = document.get("pad_token_id", document.get("text_config", {}).get("pad_token_id"))
    return found if isinstance(found, int) else None


def stored_parameters(folder: Path) -> int:
    """The numbers in a folder's safetensors files, from their headers."""
    total = 0
    for path in weight_files(folder):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever Transformers, a template or the model's own code raises
        raise ReferenceFailed(f"{type(error).__name__}: {error}") from error


def _ids(tokenizer: Any, item: Item) -> Ids:
    if item.messages is None:
        return list(tokenizer(item.text, verbose=False)["input_ids"])
    messages = [dict(message) for message in item.messages]
    quiet = {"verbose": False}
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, tokenizer_kwargs=quiet))


@contextmanager
def _loaded(folder: Path, dtype: str, trust_remote_code: bool) -> Iterator[Any]:
    """Eager attention: the other implementations leave out what they do not know (a soft cap, sinks)."""
    disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=DTYPES[dtype],
        use_safetensors=True,
        attn_implementation="eager",
        trust_remote_code=trust_remote_code,
    )
    try:
        yield model.eval().requires_grad_(False)
    finally:
        del model
        gc.collect()


def _each(rows: Sequence[Ids], forward: Callable[[torch.Tensor], torch.Tensor]) -> Scores:
    with torch.inference_mode():
        return np.array([forward(torch.tensor([list(row)])).double().reshape(-1).numpy() for row in rows])
