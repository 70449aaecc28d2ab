"""Raw scores that are kept by fingerprint and token ids: the most recently used in memory, the store behind them."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reward_service.config import ScoreCacheConfig
from reward_service.engine.engine import Estimate
from reward_service.engine.rendering import Rendered
from reward_service.engine.score_records import Kept, pack, score_key, unpack
from reward_service.engine.score_store import ScoreStore
from reward_service.stores import Store

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Told of what need not be computed."""

    def on_cached(self, model: str, *, items: int) -> None:
        """So many items of a model were answered with kept scores."""


class ScoreCache:
    """The kept scores of all models; models of one fingerprint share theirs. Used from one event loop.

    A score that is not finite is never kept, one that is damaged, foreign or older than `ttl_s` never returned.
    Without a store the scores in memory are all there are.
    """

    def __init__(
        self,
        config: ScoreCacheConfig,
        store: Store | None = None,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._behind = None if store is None else ScoreStore(store, config.ttl_s)
        self._observer = observer
        self._clock = clock
        self._recent: OrderedDict[str, Kept] = OrderedDict()

    def of(self, model: str, fingerprint: str) -> "ModelScores":
        """The part of one model."""
        return ModelScores(self, model, fingerprint, self._observer)

    async def get_many(self, fingerprint: str, rendered: Sequence[Rendered]) -> list[Estimate | None]:
        """A kept score of each item, None where there is none; asks the store once. Raises nothing."""
        keys = [score_key(fingerprint, one) for one in rendered]
        found = {key: kept for key in keys if (kept := self._get(key)) is not None}
        missing = list(dict.fromkeys(key for key in keys if key not in found))
        if missing and self._behind is not None:
            found |= self._taken(missing, await self._behind.get_many(missing))
        return [_estimate(found[key], one) if key in found else None for key, one in zip(keys, rendered, strict=True)]

    def put(self, fingerprint: str, rendered: Rendered, estimate: Estimate) -> None:
        """Keep the outputs of an item, unless they are not finite or not all that the model says of it."""
        whole = estimate.variance is None and estimate.steps is None and estimate.features is None
        key = score_key(fingerprint, rendered)
        if not whole or not np.isfinite(estimate.outputs).all() or self._get(key) is not None:
            return
        outputs = np.array(estimate.outputs, dtype=np.float64)
        outputs.setflags(write=False)
        kept = Kept(outputs, self._clock())
        self._keep(key, kept)
        if self._behind is not None:
            self._behind.put(key, pack(key, kept))

    async def close(self) -> None:
        """Write what is not in the store yet. The store itself stays open."""
        if self._behind is not None:
            await self._behind.close()

    def _get(self, key: str) -> Kept | None:
        kept = self._recent.get(key)
        if kept is not None and self._is_expired(kept):
            del self._recent[key]
            return None
        if kept is not None:
            self._recent.move_to_end(key)
        return kept

    def _keep(self, key: str, kept: Kept) -> None:
        self._recent[key] = kept
        self._recent.move_to_end(key)
        while len(self._recent) > self._config.max_entries:
            self._recent.popitem(last=False)

    def _taken(self, keys: Sequence[str], records: Sequence[bytes | None]) -> dict[str, Kept]:
        """The scores of the store's records, now in memory too."""
        read = [(key, unpack(key, record)) for key, record in zip(keys, records, strict=True) if record is not None]
        if damaged := [key for key, kept in read if kept is None]:
            log.warning("%d kept scores are damaged and computed anew; the first is %s", len(damaged), damaged[0])
        found = {key: kept for key, kept in read if kept is not None and not self._is_expired(kept)}
        for key, kept in found.items():
            self._keep(key, kept)
        return found

    def _is_expired(self, kept: Kept) -> bool:
        return self._clock() >= kept.since + self._config.ttl_s


@dataclass(frozen=True, slots=True)
class ModelScores:
    """What is kept of one model, and told to the observer when it is used."""

    cache: ScoreCache
    model: str
    fingerprint: str
    observer: Observer | None

    async def get_many(self, rendered: Sequence[Rendered]) -> list[Estimate | None]:
        """A kept score of each item, None where there is none."""
        found = await self.cache.get_many(self.fingerprint, rendered)
        hits = sum(estimate is not None for estimate in found)
        if hits and self.observer is not None:
            self.observer.on_cached(self.model, items=hits)
        return found

    def put(self, rendered: Rendered, estimate: Estimate) -> None:
        """Keep what was computed for an item."""
        self.cache.put(self.fingerprint, rendered, estimate)


def _estimate(kept: Kept, rendered: Rendered) -> Estimate:
    return Estimate(
        outputs=kept.outputs,
        tokens=rendered.tokens,
        tokens_computed=0,
        response_tokens=rendered.response_tokens,
        cached=True,
    )
