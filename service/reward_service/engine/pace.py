"""How long a batch of a model will take, from how long its batches took."""

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
