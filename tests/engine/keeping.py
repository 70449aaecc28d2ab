"""Score caches for tests: a clock that a test moves, a store that hangs, items and scores."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np

from reward_service.config import ScoreCacheConfig
from reward_service.engine.engine import Engine, Estimate, Item, Priority
from reward_service.engine.rendering import Rendered
from reward_service.engine.score_cache import ScoreCache
from reward_service.stores import MemoryStore, Store, Values

MODEL = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Hanging(MemoryStore):
    """A store that does not answer before `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.reads = 0

    async def get_many(self, keys: Sequence[str]) -> Values:
        self.reads += 1
        await self.answers.wait()
        return await super().get_many(keys)

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        await self.answers.wait()
        await super().put_many(items, ttl_s=ttl_s)


def cache(
    store: Store | None = None, *, clock: Clock | None = None, entries: int = 1000, ttl_s: float = 60
) -> ScoreCache:
    settings = ScoreCacheConfig(max_entries=entries, ttl_s=ttl_s)
    return ScoreCache(settings, store) if clock is None else ScoreCache(settings, store, clock=clock)


def tokens(*ids: int, pooled: int | None = None, response: int | None = 1) -> Rendered:
    return Rendered(np.array(ids, dtype=np.int32), len(ids) - 1 if pooled is None else pooled, response)


def scored(*numbers: float) -> Estimate:
    return Estimate(np.array(numbers), tokens=3, tokens_computed=3)


async def kept(scores: ScoreCache, *rendered: Rendered, fingerprint: str = MODEL) -> list[list[float] | None]:
    found = await scores.get_many(fingerprint, rendered)
    return [None if one is None else one.outputs.tolist() for one in found]


async def again(engine: Engine, item: Item, *, use_cache: bool = True) -> Estimate:
    (result,) = await engine.score(
        [item], priority=Priority.ROLLOUT, deadline=time.monotonic() + 30, use_cache=use_cache
    )
    assert isinstance(result, Estimate)
    return result
