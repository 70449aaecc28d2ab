"""From a URL to a store."""

from collections.abc import Callable
from urllib.parse import urlsplit

from reward_service.stores.base import Store
from reward_service.stores.memory import MemoryStore
from reward_service.stores.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """The store of `memory://`, `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`; else a ValueError.

    Nothing is read or created yet: the first operation does, and `ping` says whether it can.
    """
    scheme = urlsplit(url).scheme
    if scheme not in STORES:
        raise ValueError(f"{url!r} names no known store; valid: {', '.join(f'{name}://' for name in STORES)}")
    return STORES[scheme](url)


def memory_store(_url: str) -> Store:
    """A new, empty store in this process."""
    return MemoryStore()


def sqlite_store(url: str) -> Store:
    """The store in the file that the URL names."""
    path = url.removeprefix("sqlite://")[1:]
    if not path:
        raise ValueError(f"{url!r} names no file; valid: sqlite:///relative/path.db or sqlite:////absolute/path.db")
    return SqliteStore(path)


STORES: dict[str, Callable[[str], Store]] = {"memory": memory_store, "sqlite": sqlite_store}
