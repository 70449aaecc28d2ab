"""How long a batch of a model will take, and what waits for it, from how long its batches took."""

FADES = 0.25
"""Weight of the newest batch in the rate of its kind."""


class Pace:
    """Seconds per token by the length of a batch's longest item, since attention makes tokens of long items dear."""

    def __init__(self) -> None:
        self._rates: dict[int, float] = {}

    def learn(self, tokens: int, longest: int, seconds: float) -> None:
        """Counts a batch of so many computed tokens."""
        kind, rate = longest.bit_length(), seconds / max(1, tokens)
        self._rates[kind] = (1 - FADES) * self._rates.get(kind, rate) + FADES * rate

    def rate(self, longest: int) -> float | None:
        """Seconds per token, of the nearest length that was measured; None before the first batch."""
        if not self._rates:
            return None
        kind = longest.bit_length()
        return self._rates[min(self._rates, key=lambda known: (abs(known - kind), known))]

    def expect(self, tokens: int, longest: int) -> float:
        """Seconds that a batch will probably take; 0 before the first."""
        return tokens * (self.rate(longest) or 0.0)


class Speed:
    """Tokens per second at which a model computes what waits; 0 before its first batch."""

    def __init__(self) -> None:
        self.tokens_per_s = 0.0

    def learn(self, tokens: int, seconds: float, *, busy: bool) -> None:
        """Counts a batch. A slow one counts only when it left others of its model waiting: small batches are slow."""
        rate = tokens / max(seconds, 1e-9)
        quicker = rate > self.tokens_per_s
        if not self.tokens_per_s:
            self.tokens_per_s = rate
        elif quicker or busy:
            weight = FADES if quicker else FADES / 2  # the first batches take long, since layers are compiled then
            self.tokens_per_s = 1 / ((1 - weight) / self.tokens_per_s + weight / rate)
