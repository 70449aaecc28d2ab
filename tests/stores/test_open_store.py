"""From URLs to stores."""

from pathlib import Path

import pytest

from reward_service.stores import MemoryStore, SqliteStore, open_store


def test_memory_urls_open_a_new_memory_store() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


async def test_absolute_sqlite_urls_name_a_file(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/x.db")
    assert isinstance(store, SqliteStore)
    await store.ping()
    await store.close()
    assert (tmp_path / "x.db").exists()


async def test_relative_sqlite_urls_start_at_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///.reward-service/store.db")
    await store.ping()
    await store.close()
    assert (tmp_path / ".reward-service" / "store.db").exists()


@pytest.mark.parametrize(
    "url", ["postgres://x", "store.db", "", "memory", "sqlite://", "sqlite:///", "sqlite://store.db"]
)
def test_other_urls_are_refused_with_what_is_valid(url: str) -> None:
    with pytest.raises(ValueError, match="valid: "):
        open_store(url)
