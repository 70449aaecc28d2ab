"""Baselines: reference rows per model, policy and prompt, global snapshots and canned responses, over one store."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from reward_service.baselines.cache import Cache
from reward_service.baselines.canned import CannedOutputs, Compute
from reward_service.baselines.entries import Entry, sent_by_prompt
from reward_service.baselines.keys import ROWS, SNAPSHOTS, CannedKey, RowsKey, SnapshotKey, policy_key, rows_prefix
from reward_service.baselines.policies import refuse_frozen, refuse_other_revision
from reward_service.baselines.reading import Lookup, Reader
from reward_service.baselines.records import (
    Mode,
    PolicyState,
    Snapshot,
    decode_state,
    encode_state,
)
from reward_service.baselines.rows import Floats
from reward_service.baselines.snapshots import Pool, from_document, to_document
from reward_service.baselines.writing import (
    Deletion,
    Put,
    PutResult,
    delete_records,
    set_frozen,
    set_pooled,
    set_snapshot,
)
from reward_service.errors import BaselineNotFound, BaselineUnusable, ServiceError
from reward_service.stores import Store, Values
from reward_service.stores.base import END

T = TypeVar("T")
CACHE_BYTES = 256 * 2**20
PAGE = 1000
POOLED_AT_ONCE = 100
"""Prompts per turn of a thread: as long as one lasts, its many short array operations can keep the lock of Python."""
DEFAULT_AT_LEAST = 8
SNAPSHOT_ATTEMPTS = 3


class Baselines:
    """What the service knows of reference policies.

    Every method raises StoreUnavailable when the store fails or a stored value is damaged, which is never "missing".
    Writes are atomic with the policy's state: PolicyFrozen or PolicyRevisionConflict and nothing is changed.
    """

    def __init__(self, store: Store, *, cache_bytes: int = CACHE_BYTES, canned_ttl_s: float | None = None) -> None:
        self._store = store
        self._reader = Reader(store, Cache(cache_bytes))
        self._canned = CannedOutputs(store, self._reader, ttl_s=canned_ttl_s)

    async def look_up(
        self,
        rows: Collection[RowsKey] = (),
        canned: Collection[CannedKey] = (),
        policies: Collection[str] = (),
        snapshots: Collection[SnapshotKey] = (),
    ) -> Lookup:
        """All that one request needs, in one store round trip; a second one only after another write to a policy."""
        found, states = await self._reader.read(list(dict.fromkeys([*rows, *canned, *snapshots])), policies)
        return Lookup(
            rows={key: value for key, value in found.items() if isinstance(key, RowsKey)},
            canned={key: value for key, value in found.items() if isinstance(key, CannedKey)},
            policies=states,
            snapshots={key: value for key, value in found.items() if isinstance(key, SnapshotKey)},
        )

    async def canned(self, keys: Collection[CannedKey], compute: Compute) -> dict[CannedKey, Floats | ServiceError]:
        """Outputs of canned responses that `look_up` did not find, scored once however many requests miss them.

        `compute` scores a list of keys and answers each, in order, with its outputs (labels,) or an error; it may be
        called for a part of `keys`, or not at all. Outputs are stored, errors are not. What it raises is raised here.
        A store that fails costs the sharing between replicas and nothing else: the outputs are computed here.
        """
        return await self._canned.outputs(keys, compute)

    async def put(
        self,
        *,
        fingerprint: str,
        policy: str,
        policy_revision: str | None,
        entries: Sequence[Entry],
        labels: int,
        mode: Mode = "replace",
        idempotency_key: str | None = None,
    ) -> PutResult:
        """Write the rows of all entries, or none. The same write with the same idempotency key changes nothing.

        IdempotencyConflict when the key came with other content for a prompt; a merge may send parts of one sample, of
        other draws, under one key. A prompt remembers its last 32 keys.
        """
        draw_source = idempotency_key or uuid4().hex
        by_prompt = await asyncio.to_thread(sent_by_prompt, entries, labels, draw_source)
        sent = {RowsKey(fingerprint, policy, prompt): one for prompt, one in by_prompt.items()}
        put = Put(policy, policy_revision, mode, idempotency_key, sent)
        return await self._update(put.keys, put.apply)

    async def check_writable(self, policy: str, policy_revision: str | None) -> None:
        """Raise PolicyFrozen or PolicyRevisionConflict if a write would now, before work is spent on preparing it."""
        state = await self._state(policy)
        refuse_frozen(policy, state)
        refuse_other_revision(policy, state, policy_revision)

    async def delete(self, *, fingerprint: str | None, policy: str, prompt: str | None = None) -> Deletion:
        """Delete the rows of one prompt, or all rows and the snapshot of the policy; by one model, or (None) by all.

        All of a policy goes in steps of 1,000 prompts, each atomic. With the last record of a policy under any model
        its name is free for another policy revision.
        """
        models = await self._fingerprints() if fingerprint is None else [fingerprint]
        if prompt is not None:
            return await self._delete(policy, [RowsKey(model, policy, prompt).store_key for model in models])
        deleted = sum([await self._delete_rows(model, policy) for model in models])
        rest = await self._delete(policy, [SnapshotKey(model, policy).store_key for model in models])
        return Deletion(deleted, rest.state)

    async def freeze(self, policy: str, is_frozen: bool) -> PolicyState:
        """Freeze or unfreeze the baselines of a policy under every model; BaselineNotFound when it has none."""

        def change(values: Values) -> tuple[Values, PolicyState]:
            before = decode_state(policy_key(policy), values[0])
            if not before.records:
                raise BaselineNotFound(f"policy {policy!r} has no baselines")
            state = set_frozen(before, is_frozen)
            return [encode_state(state)], state

        return await self._update([policy_key(policy)], change)

    async def build_snapshot(self, *, fingerprint: str, policy: str, at_least: int = DEFAULT_AT_LEAST) -> Snapshot:
        """Pool the rows of all prompts with at least `at_least` rows into the policy's global snapshot.

        It stays as it is until it is built again. BaselineUnusable under 100 prompts, or when the policy is written to
        during each of three attempts.
        """
        key = SnapshotKey(fingerprint, policy)
        for _ in range(SNAPSHOT_ATTEMPTS):
            before = await self._state(policy)
            refuse_frozen(policy, before)
            pooled = await self._pool(rows_prefix(fingerprint, policy), at_least)
            change = partial(set_pooled, key, pooled, before)
            snapshot = await self._update([policy_key(policy), key.store_key], change)
            if snapshot is not None:
                return snapshot
        raise BaselineUnusable(
            f"policy {policy!r} was written to while its references were pooled, {SNAPSHOT_ATTEMPTS} times in a row; "
            "build the global snapshot when no writes are under way"
        )

    async def load_snapshot(self, document: Mapping[str, Any], *, fingerprint: str, policy: str) -> Snapshot:
        """Set the policy's global snapshot from a `snapshot_document`, under the policy revision that it names."""
        key = SnapshotKey(fingerprint, policy)
        change = partial(set_snapshot, key, from_document(key, document), document.get("policy_revision"))
        return await self._update([policy_key(policy), key.store_key], change)

    async def snapshot_document(self, *, fingerprint: str, policy: str) -> dict[str, Any]:
        """The policy's global snapshot as plain JSON, for `load_snapshot`; BaselineNotFound when it has none."""
        key = SnapshotKey(fingerprint, policy)
        found = await self.look_up(snapshots=[key])
        if key not in found.snapshots:
            raise BaselineNotFound(f"policy {policy!r} has no global snapshot for this model; build one first")
        return to_document(key, found.policies[policy].policy_revision, found.snapshots[key])

    async def _delete(self, policy: str, keys: Sequence[str]) -> Deletion:
        change = partial(delete_records, policy)
        return await self._update([policy_key(policy), *keys], change)

    async def _delete_rows(self, fingerprint: str, policy: str) -> int:
        deleted, prefix = 0, rows_prefix(fingerprint, policy)
        while page := await self._store.scan(prefix, limit=PAGE):
            deleted += (await self._delete(policy, [key for key, _ in page])).deleted
        return deleted

    async def _fingerprints(self) -> list[str]:
        """Every model with rows or snapshots of any policy, each found by one step over all keys of the one before."""
        found: dict[str, None] = {}
        for kind in (ROWS, SNAPSHOTS):
            after = ""
            while first := await self._store.scan(kind, after=after, limit=1):
                fingerprint = first[0][0].split("/")[1]
                found[fingerprint] = None
                after = f"{kind}{fingerprint}/{END}"
        return list(found)

    async def _state(self, policy: str) -> PolicyState:
        return (await self.look_up(policies=[policy])).policies[policy]

    async def _pool(self, prefix: str, at_least: int) -> Snapshot:
        pool, after = Pool(at_least), ""
        while page := await self._store.scan(prefix, after=after, limit=PAGE):
            for start in range(0, len(page), POOLED_AT_ONCE):
                await asyncio.to_thread(pool.add_page, page[start : start + POOLED_AT_ONCE])
            after = page[-1][0]
        return await asyncio.to_thread(pool.snapshot)

    async def _update(self, keys: Sequence[str], change: Callable[[Values], tuple[Values, T]]) -> T:
        """Update `keys` atomically and return what `change` says beside the new values."""
        results: list[T] = []

        def apply(values: Values) -> Values:
            after, result = change(values)
            results.append(result)
            return after

        await self._store.update(keys, apply)
        return results[-1]
