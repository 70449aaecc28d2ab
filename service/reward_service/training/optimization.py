"""What both training stages share: AdamW, a learning rate that rises and falls, a clipped step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate: linear to `peak` over `warm_share` of the steps, then half a cosine to 0."""

    peak: float
    total_steps: int
    warm_share: float = 0.1

    def at(self, step: int) -> float:
        """Learning rate of the zero-based `step`."""
        warm_steps = max(1, round(self.warm_share * self.total_steps))
        if step < warm_steps:
            return self.peak * (step + 1) / warm_steps
        progress = (step - warm_steps) / max(1, self.total_steps - warm_steps)
        return self.peak * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101); gains of the norms are not decayed."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def step(model: nn.Module, adamw: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    """One update from `loss`, its gradient clipped to norm 1."""
    adamw.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    for group in adamw.param_groups:
        group["lr"] = learning_rate
    adamw.step()
