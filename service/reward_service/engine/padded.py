"""Rendered items through a model on its device: right-padded batches, checked against the model itself at load."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reward_service.engine.forward import Forward, Layout, Pause, run
from reward_service.engine.heads import Head, OwnHead, pooled_head
from reward_service.engine.rendering import Rendered, pooled_index

log = logging.getLogger(__name__)

SAME_ROW = 1e-3
"""Most that pooling before the head may change a score, relative to the largest of the probes: the body computes the
very same numbers."""
SAME_PADDED = {torch.float32: 1e-3, torch.float16: 0.0125, torch.bfloat16: 0.1}
"""Most that padding may change a score, on the same scale. Rounding to bfloat16 (steps of 0.4 to 0.8 %) changed those
of 28 tiny and 2 small models by up to 1 %, of random models of 24 to 48 layers by up to 4 %; float16 rounds 8 times as
finely. Models that averaged over the padding, or attended to it, were 29 to 315 % off."""
PROBE_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)


class PaddedForward:
    """Right-padded batches under an attention mask; one item at a time for a model whose scores depend on padding."""

    def __init__(self, head: Head, device: torch.device, pad_token_id: int | None, *, alone: bool = False) -> None:
        self._head = head
        self._device = device
        self._fill = 0 if pad_token_id is None else pad_token_id
        self._alone = alone

    layout = Layout.PADDED

    def prepare(self, batch: Sequence[Rendered]) -> Sequence[Rendered]:
        """Nothing is done ahead."""
        return batch

    def compute(self, prepared: Sequence[Rendered], pause: Pause) -> NDArray[np.float64]:
        """(items, labels)."""
        rows = []
        for part in [[one] for one in prepared] if self._alone else [prepared]:
            pause()
            with torch.inference_mode():
                rows.append(self._outputs(part))
        return np.concatenate(rows)

    def _outputs(self, batch: Sequence[Rendered]) -> NDArray[np.float64]:
        ids = np.full((len(batch), max(one.tokens for one in batch)), self._fill, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(batch):
            ids[row, : one.tokens] = one.ids
            mask[row, : one.tokens] = 1
        inputs = {"input_ids": self._tensor(ids), "attention_mask": self._tensor(mask)}
        outputs: NDArray[np.float64] = self._head(batch, inputs).double().cpu().numpy()
        return outputs.reshape(len(batch), -1)

    def _tensor(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def padded_forward(
    model: nn.Module, probe: NDArray[np.int32], pad_token_id: int | None, *, batches: bool = True
) -> Forward:
    """The fastest padded forward that gives what the model gives for one item alone; `probe` is a text's ids.

    Without `batches` items run one at a time.

    A model that gives NaN is like no other, not even itself: it runs one item at a time, and each is an error.
    """
    weight = next(model.parameters())
    own = OwnHead(model)
    probes = [_item(probe[:length], pad_token_id) for length in PROBE_LENGTHS]
    alone = PaddedForward(own, weight.device, pad_token_id, alone=True)
    expected = run(alone, probes)

    pooled = pooled_head(model)
    if pooled is not None:
        found = run(PaddedForward(pooled, weight.device, pad_token_id, alone=True), probes)
        if not same(found, expected, SAME_ROW):
            log.warning("%s does not pool by Transformers' rule: its own forward is used", type(model).__name__)
            pooled = None
    if not batches or (pooled is None and pad_token_id is None):
        return alone  # the model's own forward refuses batches then
    together = PaddedForward(pooled or own, weight.device, pad_token_id)
    if same(run(together, probes), expected, SAME_PADDED.get(weight.dtype, SAME_ROW)):
        return together
    log.warning("scores of %s depend on padding: it runs one conversation at a time", type(model).__name__)
    return PaddedForward(pooled or own, weight.device, pad_token_id, alone=True)


def _item(ids: NDArray[np.int32], pad_token_id: int | None) -> Rendered:
    """A probe that ends in the pad token, where pooling rules part."""
    ids = ids if pad_token_id is None else np.append(ids, np.int32(pad_token_id))
    return Rendered(ids, pooled_index(ids, pad_token_id), None)


def same(found: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float) -> bool:
    """Whether two tables of (items, labels) agree, relative to the largest expected score of each label."""
    if found.shape != expected.shape:
        return False
    with np.errstate(invalid="ignore"):  # infinities
        return bool((np.abs(found - expected) <= tolerance * np.abs(expected).max(axis=0)).all())
