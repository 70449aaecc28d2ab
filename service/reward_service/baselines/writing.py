"""The atomic changes behind the writes of Baselines: pure functions from stored values to stored values.

Each takes the policy's state first and the values written after it, as `Store.update` gives them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reward_service.baselines.entries import Sent
from reward_service.baselines.keys import RowsKey, SnapshotKey, policy_key
from reward_service.baselines.policies import after_delete, after_write, refuse_frozen, refuse_other_revision
from reward_service.baselines.records import (
    Mode,
    PolicyState,
    Snapshot,
    StoredRows,
    Write,
    decode_rows,
    decode_snapshot,
    decode_state,
    encode_rows,
    encode_snapshot,
    encode_state,
    reuses_key,
    write_of,
    written,
)
from reward_service.errors import IdempotencyConflict
from reward_service.stores import Values


@dataclass(frozen=True, slots=True)
class PutResult:
    """How many prompts a put changed and how many it left as they were, and the policy's state after it."""

    written: int
    unchanged: int
    state: PolicyState


@dataclass(frozen=True, slots=True)
class Deletion:
    """How many prompts a delete removed (one of several models counts for each), and the policy's state after it."""

    deleted: int
    state: PolicyState


@dataclass(frozen=True, slots=True)
class Put:
    """What to write for several prompts of a policy."""

    policy: str
    policy_revision: str | None
    mode: Mode
    idempotency_key: str | None
    sent: Mapping[RowsKey, Sent]

    @property
    def keys(self) -> list[str]:
        """The store keys of the state and of the prompts."""
        return [policy_key(self.policy), *(key.store_key for key in self.sent)]

    def apply(self, values: Values) -> tuple[Values, PutResult]:
        """The values after the put, and what it did."""
        state = decode_state(policy_key(self.policy), values[0])
        refuse_frozen(self.policy, state)
        refuse_other_revision(self.policy, state, self.policy_revision)
        revision = state.revision + 1
        after = [
            self._record(key, sent, old, revision)
            for (key, sent), old in zip(self.sent.items(), values[1:], strict=True)
        ]
        changed = sum(is_changed for _, is_changed in after)
        if changed:
            state = after_write(state, self.policy_revision, added=sum(old is None for old in values[1:]))
        head = encode_state(state) if changed else values[0]
        return [head, *(data for data, _ in after)], PutResult(changed, len(after) - changed, state)

    def _record(self, key: RowsKey, sent: Sent, old: bytes | None, revision: int) -> tuple[bytes, bool]:
        stored = None if old is None else decode_rows(key.store_key, old)
        write = self._write(key, sent, stored)
        record = written(stored, sent.rows, self.mode, write, revision)
        return encode_rows(record), record.revision == revision

    def _write(self, key: RowsKey, sent: Sent, stored: StoredRows | None) -> Write | None:
        """What to remember of the write; IdempotencyConflict when another write of the prompt had its key."""
        if self.idempotency_key is None:
            return None
        write = write_of(self.idempotency_key, self.mode, sent.rows.draws, sent.content)
        if stored is not None and reuses_key(write, self.mode, stored.writes):
            raise IdempotencyConflict(
                f"the idempotency key {self.idempotency_key!r} was used for another write of the prompt {key.prompt} "
                f"of policy {self.policy!r}; give each new write a key of its own"
            )
        return write


def delete_records(policy: str, values: Values) -> tuple[Values, Deletion]:
    """The values after all records given are deleted, and how many there were."""
    state = decode_state(policy_key(policy), values[0])
    refuse_frozen(policy, state)
    found = sum(value is not None for value in values[1:])
    if not found:
        return values, Deletion(0, state)
    state = after_delete(state, found)
    return [encode_state(state), *(None for _ in values[1:])], Deletion(found, state)


def set_snapshot(
    key: SnapshotKey, snapshot: Snapshot, policy_revision: str | None, values: Values
) -> tuple[Values, Snapshot]:
    """The values with the snapshot in place of the old one, and it with its revision; equal rows change nothing."""
    state = decode_state(policy_key(key.policy), values[0])
    refuse_frozen(key.policy, state)
    refuse_other_revision(key.policy, state, policy_revision)
    old = None if values[1] is None else decode_snapshot(key.store_key, values[1])
    if old is not None and (old.rows, old.prompts) == (snapshot.rows, snapshot.prompts):
        return values, old
    state = after_write(state, policy_revision, added=int(old is None))
    snapshot = replace(snapshot, revision=state.revision)
    return [encode_state(state), encode_snapshot(snapshot)], snapshot


def set_pooled(
    key: SnapshotKey, snapshot: Snapshot, before: PolicyState, values: Values
) -> tuple[Values, Snapshot | None]:
    """As `set_snapshot`, for rows read at the state `before`; None and no change if the policy was written to since."""
    if decode_state(policy_key(key.policy), values[0]).version != before.version:
        return values, None
    return set_snapshot(key, snapshot, before.policy_revision, values)


def set_frozen(state: PolicyState, is_frozen: bool) -> PolicyState:
    """The state, frozen or not; of the same revision, since no baseline changes: a pinned run may freeze its policy."""
    return replace(state, frozen=is_frozen)
