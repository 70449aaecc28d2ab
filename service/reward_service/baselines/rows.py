"""Reference rows: one scored response each, at most 256 per prompt, kept by the smallest hash of their draw id.

Keeping the smallest hashes makes the set of rows a function of the set of draws alone: merging is commutative,
associative and idempotent, so neither order, split nor replay of the writes matters, and the kept rows are a uniform
sample of all that were sent.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_service.errors import InvalidRequest

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Draws = NDArray[np.uint8]

MAX_ROWS = 256
DRAW_BYTES = 16
UNKNOWN = -1
"""The length of a response whose length nobody stated."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """m reference rows in the order of their draws; the arrays are read-only. `bottom` builds them."""

    draws: Draws
    """(m, 16): the hash of each row's draw id."""
    outputs: Floats
    """(m, labels): every output of the model."""
    std: Floats
    """(m, labels): the standard deviation of each output, NaN where the model has none."""
    tokens: Ints
    """(m,): length of the response in tokens, -1 when unknown."""
    characters: Ints
    """(m,): length of the response in characters, -1 when unknown."""

    def __len__(self) -> int:
        return len(self.draws)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        return all(same(a, b) for a, b in zip(self.columns, other.columns, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """The five arrays, in the order of the fields."""
        return (self.draws, self.outputs, self.std, self.tokens, self.characters)

    @property
    def labels(self) -> int:
        """How many outputs each row has."""
        return int(self.outputs.shape[1])

    @property
    def nbytes(self) -> int:
        """The memory of the arrays in bytes."""
        return sum(column.nbytes for column in self.columns)

    def first(self, count: int) -> "Rows":
        """The `count` rows with the smallest draws, as arrays of their own: a slice would keep all rows in memory."""
        return self if len(self) <= count else Rows(*(frozen(column[:count].copy()) for column in self.columns))


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal, where NaN equals NaN."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def draw_hashes(draw_ids: Iterable[str]) -> Draws:
    """(m, 16): the hash of each draw id."""
    digests = (
        hashlib.blake2b(draw_id.encode("utf-8", "surrogatepass"), digest_size=DRAW_BYTES).digest()
        for draw_id in draw_ids
    )
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DRAW_BYTES)


def bottom(rows: Sequence[Rows], limit: int = MAX_ROWS) -> Rows:
    """The union of all rows by draw, cut to the `limit` smallest; of rows with the same draw the first one stays."""
    if len({part.labels for part in rows}) > 1:
        counts = " and ".join(str(part.labels) for part in rows)
        raise InvalidRequest(f"rows with {counts} outputs cannot be merged: every row holds all outputs of the model")
    draws, *rest = (np.concatenate(column) for column in zip(*(part.columns for part in rows), strict=True))
    _, firsts = np.unique(np.ascontiguousarray(draws).view(f"S{DRAW_BYTES}").ravel(), return_index=True)
    return Rows(*(frozen(column[firsts[:limit]]) for column in (draws, *rest)))


def merge(a: Rows, b: Rows) -> Rows:
    """The rows of both, at most 256; for a draw that both have, the row of `a`."""
    return bottom([a, b])


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """The array, read-only from now on, since caches share it."""
    array.setflags(write=False)
    return array
