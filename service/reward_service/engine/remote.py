"""What computes a model that batches by itself (vLLM, or servers on the network): an account and its speed."""

import time

from reward_service.engine.admission import Account

LONGEST_GAP_S = 10.0
"""A longer time between two answers was not all spent computing."""


class RemoteDevice:
    """The account of one model's tokens, and how fast they are answered. Used from one event loop."""

    def __init__(self, name: str, max_queued_tokens: int) -> None:
        self.name = name
        self.account = Account(max_queued_tokens, self.seconds)
        self.tokens_per_s = 0.0
        self._tokens = self._s = 0.0
        self._since = time.monotonic()

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait or are being computed."""
        return self.account.held

    def seconds(self, tokens: int) -> float:
        """How long so many tokens will take, at least a second: what a caller without room is told to wait."""
        return max(1.0, tokens / self.tokens_per_s) if self.tokens_per_s else 1.0

    def started(self) -> None:
        """Something is computed from now on, where nothing was."""
        self._since = time.monotonic()

    def answered(self, tokens: int) -> None:
        """So many tokens have come back; older ones fade."""
        now = time.monotonic()
        self._tokens = 0.95 * self._tokens + tokens
        self._s = 0.95 * self._s + min(now - self._since, LONGEST_GAP_S)
        self._since = now
        self.tokens_per_s = self._tokens / max(self._s, 1e-9)
