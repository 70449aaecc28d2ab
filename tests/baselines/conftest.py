"""Stores for the baselines, and rows to put into them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reward_service.stores import MemoryStore, SqliteStore, Store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
    yield store
    await store.close()
