"""Token prefixes that items have in common: pure functions on token ids."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SHARE_FROM = 16
"""So many tokens in common are computed once; for fewer, sharing costs more than it saves."""

Ids = NDArray[np.int32]


def sort_key(ids: Ids) -> bytes:
    """Bytes that sort as the token ids do; a row sorts right before those that it is a prefix of."""
    return ids.astype(">i4").tobytes()


def order(rows: Sequence[Ids]) -> list[int]:
    """Indices of the rows in lexicographic order, equal rows as they come."""
    keys = [sort_key(row) for row in rows]
    return sorted(range(len(rows)), key=keys.__getitem__)


def common(a: Ids, b: Ids) -> int:
    """Length of the longest common prefix of two rows, in tokens."""
    shorter = min(len(a), len(b))
    different = a[:shorter] != b[:shorter]
    first = int(different.argmax()) if shorter else 0
    return first if shorter and different[first] else shorter


def shared(a: Ids, b: Ids) -> int:
    """Tokens of two rows that are computed once: their common prefix, or 0 when it is too short to share."""
    length = common(a, b)
    return length if length >= SHARE_FROM else 0


def with_previous(rows: Sequence[Ids]) -> list[int]:
    """What each of some sorted rows shares with the one before it; 0 for the first."""
    return [0, *(shared(a, b) for a, b in pairwise(rows))][: len(rows)]


class Overlaps:
    """What any two of some sorted rows share: the least that neighbours between them share, looked up in a table."""

    def __init__(self, rows: Sequence[Ids]) -> None:
        self.with_previous = with_previous(rows)
        table = [np.array(self.with_previous, dtype=np.int64)]  # level n: the least of the 2**n from here on
        while len(table[-1]) > (step := 2 ** (len(table) - 1)):
            table.append(np.minimum(table[-1][:-step], table[-1][step:]))
        self._least = [level.tolist() for level in table]

    def between(self, first: int, second: int) -> int:
        """Tokens that two rows share; `first` < `second` are their places in the order."""
        level = (second - first).bit_length() - 1
        least = self._least[level]
        return int(min(least[first + 1], least[second + 1 - 2**level]))
