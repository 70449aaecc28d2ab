"""The values read last, in front of the store, bounded in bytes."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_service.baselines.records import Snapshot, StoredRows, Version
from reward_service.baselines.rows import Floats

Value = StoredRows | Snapshot | Floats | None
OVERHEAD = 1024
"""Bytes that an item takes beside its arrays: key, objects and array headers."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A value (None: the store has none) as it was at the policy's `version`, None for what has no policy."""

    value: Any
    version: Version | None


class Cache:
    """The least recently used values go first when all together exceed `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._items: OrderedDict[str, Cached] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Cached | None:
        """The value of `key`, which is now the most recently used."""
        cached = self._items.get(key)
        if cached is not None:
            self._items.move_to_end(key)
        return cached

    def put(self, key: str, cached: Cached) -> None:
        """Keep the value, and let go of the oldest ones as needed."""
        previous = self._items.pop(key, None)
        self._bytes += size(cached.value) - (size(previous.value) if previous else 0)
        self._items[key] = cached
        while self._bytes > self._max_bytes:
            _, oldest = self._items.popitem(last=False)
            self._bytes -= size(oldest.value)


def size(value: Value) -> int:
    """About how much memory a cached value takes, in bytes."""
    if value is None:
        return OVERHEAD
    return OVERHEAD + (value.nbytes if isinstance(value, np.ndarray) else value.rows.nbytes)
