"""The Store protocol: bytes by key, with expiry, many keys per round trip, and atomic updates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Values = list[bytes | None]
Change = Callable[[Values], Values]

PAGE = 1000
END = "\x7f"
"""Greater than every character of a key, so that `prefix + END` bounds the keys of a prefix."""


class Store(Protocol):
    """Where baselines live. Every method raises StoreUnavailable when the store fails, which is not "missing".

    Keys are printable ASCII; another key is a ValueError, as is a key given twice to `update`.
    """

    async def get_many(self, keys: Sequence[str]) -> Values:
        """The values of `keys` in order, None where there is none; one round trip, all as of one moment."""

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        """Write all items or none; they expire after `ttl_s` seconds if given, else never."""

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        """Write each item whose key has no value, to expire after `ttl_s` seconds, and say which were written.

        Of callers that add one key at once exactly one is told that it wrote.
        """

    async def update(self, keys: Sequence[str], change: Change) -> Values:
        """Replace the values of `keys` by `change(values)` atomically (None deletes) and return the new values.

        A value that `change` leaves as it was keeps its expiry; a new value does not expire. `change` may run in
        another thread and more than once, so it must be pure. When it raises, nothing is written and it passes on.
        """

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, bytes]]:
        """The first `limit` items whose key starts with `prefix` and is greater than `after`, in key order.

        Items that expire are not among them: they come and go by themselves and nobody lists them.
        """

    async def ping(self) -> None:
        """Return when the store answers."""

    async def close(self) -> None:
        """Release files and connections; the store cannot be used afterwards. Closing twice is harmless."""


def checked_keys(keys: Sequence[str]) -> Sequence[str]:
    """The keys, or ValueError for one that is empty or not printable ASCII."""
    for key in keys:
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError(f"{key!r} is not a store key: keys are printable ASCII")
    return keys


def distinct_keys(keys: Sequence[str]) -> Sequence[str]:
    """The keys, or ValueError when one is not a key or stands there twice."""
    if len(set(keys)) != len(keys):
        raise ValueError("a key is given twice to update")
    return checked_keys(keys)


def changed(change: Change, values: Values) -> Values:
    """`change(values)`, or ValueError when it does not answer each value with one."""
    after = change(list(values))
    if len(after) != len(values):
        raise ValueError(f"change returned {len(after)} values for {len(values)} keys")
    return after


def expiry(now: float, ttl_s: float | None) -> float | None:
    """When an item written `now` expires; None for never. A `ttl_s` that is not positive is a ValueError."""
    if ttl_s is None:
        return None
    if not ttl_s > 0:
        raise ValueError(f"ttl_s must be positive, not {ttl_s}")
    return now + ttl_s
