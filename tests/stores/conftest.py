"""Each store that the contract runs over, with a clock that tests set."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reward_service.stores import MemoryStore, SqliteStore, Store


class Clock:
    """A time that only moves when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


STORES: dict[str, Callable[[Path, Callable[[], float]], Store]] = {
    "memory": lambda _folder, clock: MemoryStore(clock=clock),
    "sqlite": lambda folder, clock: SqliteStore(folder / "a" / "b" / "store.db", clock=clock),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    store = STORES[request.param](tmp_path, clock)
    yield store
    await store.close()
