"""Reads baselines through the cache: one store round trip, a second one only for what another write made stale."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reward_service.baselines.cache import Cache, Cached
from reward_service.baselines.keys import CannedKey, RowsKey, SnapshotKey, policy_key
from reward_service.baselines.records import (
    PolicyState,
    Snapshot,
    StoredRows,
    decode_outputs,
    decode_rows,
    decode_snapshot,
    decode_state,
)
from reward_service.baselines.rows import Floats
from reward_service.errors import StoreUnavailable
from reward_service.stores import Store

Key = RowsKey | SnapshotKey | CannedKey
DECODERS: dict[type[Key], Any] = {RowsKey: decode_rows, SnapshotKey: decode_snapshot, CannedKey: decode_outputs}


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the store has of what was asked, per policy as of one revision; what it has not is absent.

    `policies` has the state of every policy asked for, by name or by a key; of one never written to, the initial state.
    """

    rows: Mapping[RowsKey, StoredRows]
    canned: Mapping[CannedKey, Floats]
    policies: Mapping[str, PolicyState]
    snapshots: Mapping[SnapshotKey, Snapshot]


class Reader:
    """Reads keys of one store and caches what it read.

    Every read fetches the states of the policies concerned, so a cached value of another version is seen to be stale
    even when another process wrote. Outputs of canned responses never change under their key and need no such check.
    A policy that was stored once stays stored, also after all its rows are deleted: one that is not there any more was
    lost with the store's data, which is a failure of the store and not "missing", until the policy is written again.
    """

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._stored: set[str] = set()

    async def read(
        self, keys: Collection[Key], policies: Iterable[str]
    ) -> tuple[dict[Key, Any], dict[str, PolicyState]]:
        """The values that exist, and the states of all policies concerned."""
        names = {*policies, *(key.policy for key in keys if not isinstance(key, CannedKey))}
        held = {key: cached for key in keys if (cached := self._cache.get(key.store_key)) is not None}
        fetched, states = await self._fetch([key for key in keys if key not in held], names)
        stale = stale_policies(held, states)
        if stale:
            again, newer = await self._fetch([key for key in keys if policy_of(key) in stale], stale)
            fetched, states = fetched | again, states | newer
        self._refuse_lost(keys, states)
        values = {key: cached.value for key, cached in held.items()} | fetched
        return {key: value for key, value in values.items() if value is not None}, states

    async def stored_canned(self, keys: Collection[CannedKey]) -> dict[CannedKey, Floats]:
        """The outputs in the store, now in the cache too."""
        fetched, _ = await self._fetch(list(keys), ())
        return {key: value for key, value in fetched.items() if isinstance(key, CannedKey) and value is not None}

    def keep_canned(self, outputs: Mapping[CannedKey, Floats]) -> None:
        """Cache outputs that were just computed."""
        for key, value in outputs.items():
            self._cache.put(key.store_key, Cached(value, None))

    def kept_canned(self, keys: Iterable[CannedKey]) -> dict[CannedKey, Floats]:
        """The outputs in the cache."""
        found = ((key, self._cache.get(key.store_key)) for key in keys)
        return {key: cached.value for key, cached in found if cached is not None}

    async def _fetch(self, keys: list[Key], policies: Collection[str]) -> tuple[dict[Key, Any], dict[str, PolicyState]]:
        state_keys = [policy_key(policy) for policy in policies]
        if not keys and not state_keys:
            return {}, {}
        values = await self._store.get_many([*state_keys, *(key.store_key for key in keys)])
        states = {
            policy: decode_state(key, data) for policy, key, data in zip(policies, state_keys, values, strict=False)
        }
        fetched: dict[Key, Any] = {}
        for key, data in zip(keys, values[len(state_keys) :], strict=True):
            fetched[key] = None if data is None else DECODERS[type(key)](key.store_key, data)
            self._keep(key, fetched[key], states)
        return fetched, states

    def _keep(self, key: Key, value: Any, states: Mapping[str, PolicyState]) -> None:
        if not isinstance(key, CannedKey):
            self._cache.put(key.store_key, Cached(value, states[key.policy].version))
        elif value is not None:
            self._cache.put(key.store_key, Cached(value, None))

    def _refuse_lost(self, keys: Iterable[Key], states: Mapping[str, PolicyState]) -> None:
        self._stored.update(policy for policy, state in states.items() if state.is_stored)
        for policy in sorted({policy for key in keys if (policy := policy_of(key)) is not None}):
            if policy in self._stored and not states[policy].is_stored:
                raise StoreUnavailable(f"the store lost the baselines of policy {policy!r}; store them again")


def policy_of(key: Key) -> str | None:
    """The policy whose version decides whether a cached value is still current; None for canned responses."""
    return None if isinstance(key, CannedKey) else key.policy


def stale_policies(held: Mapping[Key, Cached], states: Mapping[str, PolicyState]) -> set[str]:
    """The policies that were written to since a value of theirs was cached."""
    tagged = ((policy_of(key), cached.version) for key, cached in held.items())
    return {policy for policy, version in tagged if policy is not None and version != states[policy].version}
