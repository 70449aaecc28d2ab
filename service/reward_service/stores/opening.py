"""From a URL to a store."""

from reward_service.config.store_urls import MemoryAddress, SqliteAddress, store_address
from reward_service.stores.base import Store
from reward_service.stores.memory import MemoryStore
from reward_service.stores.sqlite import SqliteStore

TIMEOUT_S = 1.0


def open_store(url: str, *, timeout_s: float = TIMEOUT_S) -> Store:
    """The store of a URL (docs/configuration.md lists the forms); a ValueError when it is none.

    Nothing is read or created yet: the first operation does, and `ping` says whether it can. `timeout_s` is how long
    Redis may take for an answer.
    """
    address = store_address(url)
    if isinstance(address, MemoryAddress):
        return MemoryStore()
    if isinstance(address, SqliteAddress):
        return SqliteStore(address.path)
    from reward_service.stores.redis import RedisStore  # the only module that needs the redis package

    return RedisStore(address, timeout_s=timeout_s)
