"""Outputs of canned responses: scored once, however many requests on however many replicas miss them."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np

from reward_service.baselines.flights import SingleFlight
from reward_service.baselines.keys import CannedKey
from reward_service.baselines.leases import Leases
from reward_service.baselines.reading import Reader
from reward_service.baselines.records import encode_outputs
from reward_service.baselines.rows import Floats, frozen
from reward_service.errors import NotFinite, ServiceError, StoreUnavailable
from reward_service.stores import Store

log = logging.getLogger(__name__)

Results = dict[CannedKey, Floats | ServiceError]
Compute = Callable[[list[CannedKey]], Coroutine[Any, Any, Sequence[Floats | ServiceError]]]

FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.2


class CannedOutputs:
    """The canned outputs of one process: those it has, those others have, and those it computes."""

    def __init__(self, store: Store, reader: Reader, *, ttl_s: float | None = None) -> None:
        self._store = store
        self._reader = reader
        self._ttl_s = ttl_s
        self._leases = Leases(store)
        self._flights: SingleFlight[CannedKey, Floats] = SingleFlight()
        self._is_failing = False

    async def outputs(self, keys: Collection[CannedKey], compute: Compute) -> Results:
        """Outputs, or an error, of each key; `compute` is asked for what no replica has or computes."""
        kept = self._reader.kept_canned(keys)
        missing = [key for key in keys if key not in kept]
        return {**kept, **await self._flights.run(missing, lambda wanted: self._found_or_scored(wanted, compute))}

    async def _found_or_scored(self, keys: list[CannedKey], compute: Compute) -> Results:
        """Score what this process may, and wait for what other replicas score; they store it or give it up."""
        results: Results = {}
        pause_s = FIRST_PAUSE_S
        while True:
            results |= await self._claimed_and_scored([key for key in keys if key not in results], compute)
            if len(results) == len(keys):
                return results
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - the store tells nobody of a write
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def _claimed_and_scored(self, keys: list[CannedKey], compute: Compute) -> Results:
        """What the store has of `keys` by now, and what nobody else computes, scored."""
        by_name = {key.store_key: key for key in keys}
        try:
            mine = await self._leases.claimed(list(by_name))
        except StoreUnavailable as error:
            self._note_failure(error)
            return await self._scored(keys, compute)
        async with self._leases.kept(mine):
            found = await self._stored(keys)
            wanted = [key for name, key in by_name.items() if name in mine and key not in found]
            return {**found, **await self._scored(wanted, compute)}

    async def _stored(self, keys: Collection[CannedKey]) -> dict[CannedKey, Floats]:
        """What the store has; a value that is damaged is not had, and written anew."""
        try:
            return await self._reader.stored_canned(keys)
        except StoreUnavailable as error:
            self._note_failure(error)
            return {}

    async def _scored(self, keys: list[CannedKey], compute: Compute) -> Results:
        if not keys:
            return {}
        answers = dict(zip(keys, map(checked_outputs, await compute(keys)), strict=True))
        outputs = {key: answer for key, answer in answers.items() if not isinstance(answer, ServiceError)}
        self._reader.keep_canned(outputs)
        await self._store_outputs(outputs)
        return answers

    async def _store_outputs(self, outputs: Mapping[CannedKey, Floats]) -> None:
        records = {key.store_key: encode_outputs(value) for key, value in outputs.items()}
        if not records:
            return
        try:
            await self._store.put_many(records, ttl_s=self._ttl_s)
        except StoreUnavailable as error:
            self._note_failure(error)
        else:
            self._is_failing = False

    def _note_failure(self, error: StoreUnavailable) -> None:
        """Say once that the store is not used until it is used again."""
        if not self._is_failing:
            log.warning("canned responses are scored without the store, by each replica for itself: %s", error)
        self._is_failing = True


def checked_outputs(answer: Floats | ServiceError) -> Floats | ServiceError:
    """The answer of an engine as read-only outputs; NotFinite when a number is none."""
    if isinstance(answer, ServiceError):
        return answer
    if not np.isfinite(answer).all():
        return NotFinite("the model gave NaN or an infinity for a canned response")
    return frozen(np.array(answer, np.float64))
