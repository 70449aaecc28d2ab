"""Why a model is not served."""

from reward_service.engine.engine import Parity
from reward_service.errors import NotReady


class ParityRefused(NotReady):
    """The engine does not give the model's scores; `parity` has the numbers as far as they are known."""

    def __init__(self, model: str, reason: str, parity: Parity) -> None:
        super().__init__(f"model {model!r} fails the parity check: {reason}")
        self.parity = parity
