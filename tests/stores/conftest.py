"""Each store that the contract runs over, with a clock that tests move."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reward_service.stores import MemoryStore, SqliteStore, Store, open_store
from tests.redis_server import RedisServer
from tests.stores.clocks import PATIENT_S, Clock, RedisClock, SetClock


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Clock]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return open_store(server.url, timeout_s=PATIENT_S), RedisClock(server)
    clock = SetClock()
    if request.param == "memory":
        return MemoryStore(clock=clock), clock
    return SqliteStore(tmp_path / "a" / "b" / "store.db", clock=clock), clock


@pytest.fixture
async def store(opened: tuple[Store, Clock]) -> AsyncIterator[Store]:
    yield opened[0]
    await opened[0].close()


@pytest.fixture
def clock(opened: tuple[Store, Clock]) -> Clock:
    return opened[1]
