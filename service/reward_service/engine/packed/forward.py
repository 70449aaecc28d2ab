"""A model's forward over packs."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reward_service.engine.forward import Layout, Pause
from reward_service.engine.heads import body_of
from reward_service.engine.packed.attention import NAME, NotPackable, Run, running
from reward_service.engine.packed.fused import FusedLayers
from reward_service.engine.packed.gated import GatedLayers
from reward_service.engine.packed.layers import Layers, find_layers
from reward_service.engine.packed.plan import Plan, shared_plan
from reward_service.engine.rendering import Rendered


class PackedForward:
    """Items end to end, in the order of a plan.

    Making one changes the model's attention until `undo`; whether the model plays along, its numbers must show.
    Raises NotPackable for a model that cannot.
    """

    def __init__(self, model: nn.Module, planned: Callable[[Sequence[Rendered]], Plan], *, only_pooled: bool) -> None:
        self.layout = Layout.SHARED if planned is shared_plan else Layout.PACKED
        self._model, self._body, self._planned = model, _packable_body(model), planned
        self._device = next(model.parameters()).device
        self._padding = padding_position(self._body)
        self._types = any(name.endswith("token_type_embeddings") for name, _ in self._body.named_modules())
        self._windowed = windowed_layers(model.config.get_text_config())  # type: ignore[operator,union-attr]
        self._attention = model.config._attn_implementation  # type: ignore[union-attr]
        model.set_attn_implementation(NAME)  # type: ignore[operator]
        model.config.use_cache = False  # type: ignore[union-attr]
        self._fused = FusedLayers(find_layers(self._body))
        self.layers = Layers(self._body)
        self._gated = GatedLayers(self._body, besides=self._fused.layers)
        self.layers.only_pooled = only_pooled

    def undo(self) -> None:
        """Makes the model what it was."""
        self.layers.unwrap()
        self._gated.undo()
        self._fused.undo()
        self._model.set_attn_implementation(self._attention)  # type: ignore[operator]

    def prepare(self, batch: Sequence[Rendered]) -> Plan:
        """The plan of a batch."""
        return self._planned(batch)

    def compute(self, prepared: Plan, pause: Pause) -> NDArray[np.float64]:
        """(items, labels)."""
        self.layers.allow_recompilations()
        with torch.inference_mode(), running(prepared, pause) as run:
            last_hidden_state = self._run_body(prepared)
            if run.calls < len(self.layers.modules) + self.layers.only_pooled or run.last is None:
                raise NotPackable(f"not every layer of {type(self._model).__name__} calls its attention")
            if run.windowed < self._windowed:
                raise NotPackable(f"{type(self._model).__name__} does not tell its attention what tokens see")
            score = getattr(self._model, "score", None)
            if isinstance(score, nn.Linear):
                outputs = score(self._at_pooled(last_hidden_state, prepared))
            else:
                outputs = self._replay(run, prepared, self._at_pooled(run.last, prepared))
            array: NDArray[np.float64] = outputs.double().cpu().numpy()
        return array.reshape(len(prepared.pooled), -1)

    def _run_body(self, plan: Plan) -> torch.Tensor:
        ids = self._integers(plan.ids)[None]
        types = {"token_type_ids": torch.zeros_like(ids)} if self._types else {}
        positions = self._integers(plan.positions if self._padding is None else _by_pad(plan, self._padding))[None]
        hidden: torch.Tensor = self._body(input_ids=ids, position_ids=positions, **types).last_hidden_state
        return hidden

    def _at_pooled(self, hidden: torch.Tensor, plan: Plan) -> torch.Tensor:
        """(items, hidden) of (1, T, hidden), or of (1, items, hidden) when the last layer computed those alone."""
        return hidden[0] if self.layers.only_pooled else hidden[0, self._integers(plan.pooled)]

    def _replay(self, run: Run, plan: Plan, pooled: torch.Tensor) -> torch.Tensor:
        """What the model makes of the pooled hidden states: its forward on one token each, with its layers left out."""
        run.replayed = pooled[:, None]
        outputs: torch.Tensor = self._model(input_ids=self._integers(plan.ids[plan.pooled])[:, None]).logits
        return outputs

    def _integers(self, array: NDArray[np.int32]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device, torch.int64, non_blocking=True)


def _packable_body(model: nn.Module) -> nn.Module:
    """The body of a model that may be packed."""
    name, body = type(model).__name__, body_of(model)
    if body is None:
        raise NotPackable(f"{name} has no body by Transformers' naming")
    if not getattr(model, "_supports_attention_backend", False):
        raise NotPackable(f"the attention of {name} cannot be replaced")
    if not type(model).__module__.startswith("transformers."):
        raise NotPackable(f"{name} is code of its own, whose attention may see what packs do not know")
    if "position_ids" not in inspect.signature(body.forward).parameters:
        raise NotPackable(f"{type(body).__name__} takes no positions")
    return body


def windowed_layers(config: Any) -> int:
    """At least so many layers limit what a token sees; raises NotPackable for limits that a pack does not know."""
    kinds = list(getattr(config, "layer_types", None) or [])
    if "chunked_attention" in kinds or getattr(config, "attention_chunk_size", None):
        raise NotPackable("it attends within chunks")
    if kinds:
        return kinds.count("sliding_attention")
    return int(bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True))


def padding_position(body: nn.Module) -> int | None:
    """The pad token's id where positions are counted from it, as RoBERTa and its kin do; None elsewhere."""
    places = [
        module.padding_idx
        for name, module in body.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]
    return max(places, default=None)


def _by_pad(plan: Plan, pad: int) -> NDArray[np.int32]:
    """Positions by RoBERTa's rule."""
    positions = np.full_like(plan.positions, pad)
    for span in plan.spans:
        here = slice(span.start, span.start + span.length)
        real = plan.ids[here] != pad
        positions[here] += (np.cumsum(real) * real).astype(np.int32)
    return positions
