"""From a URL to a store."""

from collections.abc import Callable

from reward_service.stores.base import Store
from reward_service.stores.memory import MemoryStore
from reward_service.stores.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """The store of `memory://`, `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`; else a ValueError.

    Nothing is read or created yet: the first operation does, and `ping` says whether it can.
    """
    scheme, separator, location = url.partition("://")
    if not separator or scheme not in STORES:
        raise ValueError(f"{url!r} names no known store; valid: {', '.join(f'{name}://' for name in STORES)}")
    return STORES[scheme](location)


def memory_store(_location: str) -> Store:
    """A new, empty store in this process."""
    return MemoryStore()


def sqlite_store(location: str) -> Store:
    """The store in a file: a slash, then its path, which is absolute with a slash of its own."""
    if not location.startswith("/") or location == "/":
        raise ValueError(
            f"'sqlite://{location}' names no file; valid: sqlite:///relative/path.db or sqlite:////absolute/path.db"
        )
    return SqliteStore(location[1:])


STORES: dict[str, Callable[[str], Store]] = {"memory": memory_store, "sqlite": sqlite_store}
