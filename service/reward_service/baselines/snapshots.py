"""The global snapshot: rows pooled over the prompts of a policy, for prompts that have no references of their own."""

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from reward_service.baselines.entries import matrix
from reward_service.baselines.keys import SnapshotKey
from reward_service.baselines.records import Snapshot, decode_rows
from reward_service.baselines.rows import DRAW_BYTES, UNKNOWN, Draws, Rows, bottom, draw_hashes
from reward_service.errors import BaselineUnusable, InvalidRequest

MAX_SNAPSHOT_ROWS = 4096
MIN_PROMPTS = 100
UNBUILT = 0
"""The revision of a snapshot that is not stored yet."""
DOCUMENT_FORMAT = "reward-service snapshot 1"


class Pool:
    """Collects rows, never more than 8192, so that every prompt weighs the same; in any order they give the same pool.

    Of n prompts each gives the rows with its smallest hashes of prompt and draw: as many as the prompt with the fewest
    rows can give, at most 4096 / n. Of more than 4096 prompts those with the smallest hashes stay. Prompts with fewer
    than `at_least` rows do not count, since a single one of them would leave as few rows of every other prompt.
    """

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._parts: list[Rows] = []
        self._held = 0
        self._quota = MAX_SNAPSHOT_ROWS
        self.prompts = 0

    def add_page(self, page: Iterable[tuple[str, bytes]]) -> None:
        """Take the rows of many prompts, by store key and as stored."""
        for key, data in page:
            self.add(key.rpartition("/")[2], decode_rows(key, data).rows)

    def add(self, prompt: str, rows: Rows) -> None:
        """Take the rows of one prompt."""
        if len(rows) < self._at_least:
            return
        self.prompts += 1
        self._quota = max(1, min(self._quota, len(rows), MAX_SNAPSHOT_ROWS // self.prompts))
        part = bottom([Rows(pool_draws(prompt, rows.draws), *rows.columns[1:])], self._quota)
        self._parts.append(part)
        self._held += len(part)
        if self._held > 2 * MAX_SNAPSHOT_ROWS:
            self._trim()

    def snapshot(self) -> Snapshot:
        """What was collected; BaselineUnusable under 100 prompts."""
        refuse_few(self.prompts, f"with at least {self._at_least} references")
        self._trim()
        return Snapshot(bottom(self._parts, MAX_SNAPSHOT_ROWS), self.prompts, UNBUILT)

    def _trim(self) -> None:
        """Let go of all that no snapshot needs any more; over 4096 prompts have one row each."""
        parts = (part.first(self._quota) for part in self._parts)
        self._parts = heapq.nsmallest(MAX_SNAPSHOT_ROWS, parts, key=lambda part: part.draws[0].tobytes())
        self._held = sum(map(len, self._parts))


def pool_draws(prompt: str, draws: Draws) -> Draws:
    """(m, 16): the hash of prompt and draw: prompts may share draw ids, and would all give the rows at one place."""
    digests = (hashlib.blake2b(prompt.encode() + draw.tobytes(), digest_size=DRAW_BYTES).digest() for draw in draws)
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DRAW_BYTES)


def refuse_few(prompts: int, which: str) -> None:
    """Raise BaselineUnusable under 100 prompts: a pooled quantile of few prompts says little of another prompt."""
    if prompts < MIN_PROMPTS:
        raise BaselineUnusable(f"a global snapshot needs at least {MIN_PROMPTS} prompts {which}; there are {prompts}")


def to_document(key: SnapshotKey, policy_revision: str | None, snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as plain JSON: its rewards and where they come from, without std and lengths."""
    return {
        "format": DOCUMENT_FORMAT,
        "fingerprint": key.fingerprint,
        "policy": key.policy,
        "policy_revision": policy_revision,
        "prompts": snapshot.prompts,
        "rewards": snapshot.rows.outputs.tolist(),
    }


def from_document(key: SnapshotKey, document: Mapping[str, Any]) -> Snapshot:
    """The snapshot in a document; InvalidRequest when it is none or of another model, BaselineUnusable if too small."""
    if document.get("format") != DOCUMENT_FORMAT:
        raise InvalidRequest(f"the snapshot's format is {document.get('format')!r}, not {DOCUMENT_FORMAT!r}")
    if document["fingerprint"] != key.fingerprint:
        raise InvalidRequest(f"the snapshot is of the model {document['fingerprint']}, not of {key.fingerprint}")
    prompts, rewards = int(document["prompts"]), document["rewards"]
    refuse_few(prompts, "behind it")
    if not min(prompts, MAX_SNAPSHOT_ROWS) <= len(rewards) <= MAX_SNAPSHOT_ROWS:
        raise InvalidRequest(f"the snapshot has {len(rewards)} rewards for {prompts} prompts")
    outputs = matrix(rewards, len(rewards[0]), "rewards")
    if not np.isfinite(outputs).all():
        raise InvalidRequest("the snapshot's rewards must be finite numbers")
    unknown = np.full(len(outputs), UNKNOWN, np.int32)
    draws = draw_hashes(f"snapshot:{index}" for index in range(len(outputs)))
    rows = Rows(draws, outputs, np.full(outputs.shape, np.nan), unknown, unknown)
    return Snapshot(bottom([rows], MAX_SNAPSHOT_ROWS), prompts, UNBUILT)
