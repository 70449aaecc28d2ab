"""What turns hidden states into outputs: a classifier head, in float32, at Transformers' pooled token."""

from collections.abc import Sequence

import torch
from torch import nn

from reward_service.engine.rendering import Rendered


def head_in_float32(model: nn.Module, num_labels: int) -> None:
    """Makes the last linear layer outside the body compute in float32: a bfloat16 head ties scores 0.06 apart."""
    body = body_of(model)
    inside = set(body.modules()) if body is not None else set()
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside]
    for head in [m for m in linears if m.out_features == num_labels][-1:]:
        head.float()
        head.register_forward_pre_hook(_to_float32)


def _to_float32(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(arg.float() for arg in args)


def body_of(model: nn.Module) -> nn.Module | None:
    """The model without its head, where Transformers' naming shows it."""
    body = getattr(model, str(getattr(model, "base_model_prefix", "")), None)
    return body if isinstance(body, nn.Module) else None


class PooledHead:
    """Decoders: the body's hidden states at the pooled tokens alone meet `score`."""

    def __init__(self, body: nn.Module, score: nn.Module) -> None:
        self._body = body
        self._score = score

    def __call__(self, batch: Sequence[Rendered], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(items, labels)."""
        hidden = self._body(**inputs).last_hidden_state
        pooled = torch.tensor([one.pooled_index for one in batch], device=hidden.device)
        outputs: torch.Tensor = self._score(hidden[torch.arange(len(batch), device=hidden.device), pooled])
        return outputs


class OwnHead:
    """Encoders and whatever pools in its own way: the model's forward as it is."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, _: Sequence[Rendered], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(items, labels)."""
        outputs: torch.Tensor = self._model(**inputs).logits
        return outputs


Head = PooledHead | OwnHead


def pooled_head(model: nn.Module) -> PooledHead | None:
    """The head of a model that looks like Transformers' decoders; whether it is one, its outputs must show."""
    body, score = body_of(model), getattr(model, "score", None)
    return PooledHead(body, score) if body is not None and isinstance(score, nn.Linear) else None
