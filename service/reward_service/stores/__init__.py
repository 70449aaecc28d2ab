"""Bytes by key with expiry: the protocol, the memory and SQLite stores, and `open_store`."""

from reward_service.stores.base import Change, Store, Values
from reward_service.stores.memory import MemoryStore
from reward_service.stores.observed import ObservedStore
from reward_service.stores.opening import open_store
from reward_service.stores.sqlite import SqliteStore

__all__ = ["Change", "MemoryStore", "ObservedStore", "SqliteStore", "Store", "Values", "open_store"]
