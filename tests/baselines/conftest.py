"""Stores for the baselines, and rows to put into them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reward_service.stores import MemoryStore, SqliteStore, Store, open_store
from tests.stores.clocks import PATIENT_S


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store: Store
    if request.param == "memory":
        store = MemoryStore()
    elif request.param == "sqlite":
        store = SqliteStore(tmp_path / "store.db")
    else:
        store = open_store(request.getfixturevalue("redis_server").url, timeout_s=PATIENT_S)
    yield store
    await store.close()
