"""What computes a model that batches by itself (vLLM, or servers on the network): an account and its speed."""

import time
from collections.abc import Callable

from reward_service.engine.admission import Account
from reward_service.engine.scheduler import Observer

LONGEST_GAP_S = 10.0
"""A longer time between two answers was not all spent computing."""
MEASURED_S = 1.0
"""The speed is that of stretches of so much time with something to compute: answers come in bursts."""
RISES, FALLS = 0.5, 0.1
"""Weight of the newest stretch where it is faster and where it is slower: a model with little to do is not slow."""


class RemoteDevice:
    """The account of one model's tokens, and how fast they are answered. Used from one event loop."""

    def __init__(
        self,
        name: str,
        max_queued_tokens: int,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self._observer = observer
        self.account = Account(max_queued_tokens, lambda _: self.tokens_per_s)
        self.tokens_per_s = 0.0
        self._tokens = self._s = 0.0
        self._since = clock()

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait or are being computed."""
        return self.account.held

    def started(self) -> None:
        """Something is computed from now on, where nothing was."""
        self._since = self._clock()

    def answered(self, tokens: int) -> None:
        """So many tokens have come back."""
        now = self._clock()
        self._tokens += tokens
        self._s += min(now - self._since, LONGEST_GAP_S)
        self._since = now
        if self._s >= MEASURED_S:
            self._learn(self._tokens / self._s)
            self._tokens = self._s = 0.0

    def _learn(self, tokens_per_s: float) -> None:
        faster = tokens_per_s > self.tokens_per_s
        weight = 1.0 if not self.tokens_per_s else RISES if faster else FALLS
        self.tokens_per_s += weight * (tokens_per_s - self.tokens_per_s)

    def note_call(self, model: str, *, items: int, tokens: int, computed_tokens: int, seconds: float) -> None:
        """Tell the observer of a call that was answered: as far as it is seen from here, that is a batch."""
        if self._observer is not None:
            self._observer.on_batch(model, items=items, tokens=tokens, computed_tokens=computed_tokens, seconds=seconds)
