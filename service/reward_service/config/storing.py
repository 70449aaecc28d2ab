"""The `[store]` table."""

from pydantic import Field, FiniteFloat
from pydantic import field_validator as validates

from reward_service.config.section import Section
from reward_service.config.store_urls import store_address


class StoreConfig(Section):
    """Where baselines are kept."""

    url: str = Field("sqlite:///.reward-service/store.db", repr=False)
    """`sqlite:///relative/path`, `sqlite:////absolute/path`, `memory://` (lost at exit), or Redis (below)."""
    timeout_s: FiniteFloat = Field(1.0, gt=0, le=60, strict=False)
    """Longest wait for an answer of Redis, in seconds; a call over many keys may take a little longer."""
    canned_ttl_s: FiniteFloat | None = Field(None, gt=0)
    """How long the score of a canned response is kept in the store, in seconds; for ever unless given."""

    @validates("url")
    @classmethod
    def _names_a_store(cls, url: str) -> str:
        store_address(url)
        return url
