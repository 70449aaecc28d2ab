"""What lies in the store, as dataclasses and as bytes. A damaged or unknown value is an error, never "missing"."""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reward_service.baselines.rows import DRAW_BYTES, Draws, Floats, Rows, frozen, merge
from reward_service.errors import StoreUnavailable
from reward_service.rewards.references import QuantileMethod, Summary

Mode = Literal["replace", "merge"]
Statistic = tuple[int, float, QuantileMethod]
"""Which output, which quantile, and by which method."""
Version = tuple[int, str]

FORMAT = 2
HEADER = struct.Struct("<4sHI")  # kind, format version, CRC-32 of the body
SHAPE = struct.Struct("<IHB")  # rows, labels, whether any row has a std
RECORD = struct.Struct("<QH")  # revision, writes remembered
SNAPSHOT = struct.Struct("<QI")  # revision, prompts

REMEMBERED = 32
"""How many writes with an idempotency key a prompt remembers, to tell a late replay from a new write."""
HASH_BYTES = 8
WRITE_BYTES = 3 * HASH_BYTES


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What holds for all baselines of a policy.

    `revision` grows with every write that changes anything of the policy, under any model; `records` counts the prompts
    and snapshots stored for it, and while there are any, `policy_revision` is bound. `token` is another one after every
    such write: a store that lost its latest writes, or all, gives a number of revision again but no token.
    """

    policy_revision: str | None = None
    frozen: bool = False
    revision: int = 0
    records: int = 0
    token: str = field(default="", compare=False)

    @property
    def version(self) -> Version:
        """Names what is stored for the policy: whatever was read at an equal version is still so."""
        return self.revision, self.token

    @property
    def is_stored(self) -> bool:
        """Whether the policy was ever written to."""
        return self.revision > 0


@dataclass(frozen=True, slots=True)
class Write:
    """What a prompt remembers of a write that had an idempotency key: three hashes of 8 bytes."""

    key: bytes
    part: bytes
    """Of the mode and the draws: a merge may send several parts of one sample under one key."""
    content: bytes
    """Of each draw with what it came as."""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The rows of a prompt, and the policy's `revision` at the write that last changed them."""

    rows: Rows
    revision: int
    writes: tuple[Write, ...] = ()
    """The latest writes that had an idempotency key."""
    summaries: dict[Statistic, Summary] = field(default_factory=dict, compare=False, repr=False)
    """The statistics taken of the rows so far: they are kept as long as the rows are."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows pooled over `prompts` prompts, each with the same number of rows; built at the policy's `revision`."""

    rows: Rows
    prompts: int
    revision: int


def write_of(idempotency_key: str, mode: Mode, draws: Draws, content: bytes) -> Write:
    """What to remember of a write of one prompt."""
    return Write(
        key=short_hash(idempotency_key.encode("utf-8", "surrogatepass")),
        part=short_hash(mode.encode() + draws.tobytes()),
        content=short_hash(content),
    )


def reuses_key(write: Write, mode: Mode, earlier: Iterable[Write]) -> bool:
    """Whether another write had the idempotency key; for a merge only if it was of the same draws."""
    same_key = (one for one in earlier if one.key == write.key and one != write)
    return any(mode == "replace" or one.part == write.part for one in same_key)


def written(stored: StoredRows | None, rows: Rows, mode: Mode, write: Write | None, revision: int) -> StoredRows:
    """What is stored after a write: of `revision` if the rows differ from what was stored, else of the old revision."""
    if stored is None:
        return StoredRows(rows, revision, () if write is None else (write,))
    if write in stored.writes:
        return stored
    after = rows if mode == "replace" else merge(stored.rows, rows)
    writes = stored.writes if write is None else (*stored.writes, write)[-REMEMBERED:]
    return StoredRows(after, stored.revision if after == stored.rows else revision, writes)


def short_hash(data: bytes) -> bytes:
    """8 bytes that stand for the data."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def encode_state(state: PolicyState) -> bytes:
    """The bytes of a policy's state."""
    return seal(b"RPOL", json.dumps(asdict(state)).encode())


@lru_cache(maxsize=256)
def decode_state(key: str, data: bytes | None) -> PolicyState:
    """The state of a policy; of one never written to, the initial state. Every request reads the same few bytes."""
    return PolicyState() if data is None else PolicyState(**json.loads(unseal(b"RPOL", key, data)))


def encode_rows(stored: StoredRows) -> bytes:
    """The bytes of a prompt's rows."""
    head = RECORD.pack(stored.revision, len(stored.writes))
    writes = b"".join(write.key + write.part + write.content for write in stored.writes)
    return seal(b"RROW", head + writes + rows_bytes(stored.rows))


def decode_rows(key: str, data: bytes) -> StoredRows:
    """The rows of a prompt."""
    body = unseal(b"RROW", key, data)
    revision, count = RECORD.unpack_from(body)
    start = RECORD.size
    end = start + count * WRITE_BYTES
    hashes = (body[at : at + HASH_BYTES] for at in range(start, end, HASH_BYTES))
    writes = tuple(Write(*three) for three in zip(hashes, hashes, hashes, strict=True))
    return StoredRows(rows_from(body[end:]), revision, writes)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The bytes of a snapshot."""
    return seal(b"RSNP", SNAPSHOT.pack(snapshot.revision, snapshot.prompts) + rows_bytes(snapshot.rows))


def decode_snapshot(key: str, data: bytes) -> Snapshot:
    """A snapshot."""
    body = unseal(b"RSNP", key, data)
    revision, prompts = SNAPSHOT.unpack_from(body)
    return Snapshot(rows_from(body[SNAPSHOT.size :]), prompts, revision)


def encode_outputs(outputs: Floats) -> bytes:
    """The bytes of the outputs (labels,) of a canned response."""
    return seal(b"RCAN", outputs.astype("<f8").tobytes())


def decode_outputs(key: str, data: bytes) -> Floats:
    """The outputs (labels,) of a canned response."""
    return frozen(np.frombuffer(unseal(b"RCAN", key, data), "<f8").astype(np.float64))


def rows_bytes(rows: Rows) -> bytes:
    """The arrays one after the other; std only if there is any."""
    has_std = not np.isnan(rows.std).all()
    columns = [rows.draws, rows.outputs.astype("<f8")]
    columns += [rows.std.astype("<f8")] if has_std else []
    columns += [rows.tokens.astype("<i4"), rows.characters.astype("<i4")]
    return SHAPE.pack(len(rows), rows.labels, has_std) + b"".join(column.tobytes() for column in columns)


def rows_from(data: bytes) -> Rows:
    """The rows that `rows_bytes` wrote."""
    count, labels, has_std = SHAPE.unpack_from(data)
    at = SHAPE.size

    def take(dtype: str, width: int) -> NDArray[Any]:
        nonlocal at
        array = np.frombuffer(data, dtype, count * width, at)
        at += array.nbytes
        return array.reshape(count, width)

    draws, outputs = take("u1", DRAW_BYTES), take("<f8", labels)
    std = take("<f8", labels) if has_std else frozen(np.full((count, labels), np.nan))
    return Rows(draws, outputs, std, take("<i4", 1)[:, 0], take("<i4", 1)[:, 0])


def seal(kind: bytes, body: bytes) -> bytes:
    """The body behind its kind, format version and checksum."""
    return HEADER.pack(kind, FORMAT, zlib.crc32(body)) + body


def unseal(kind: bytes, key: str, data: bytes) -> bytes:
    """The body; StoreUnavailable when it is damaged, of another kind or of a format that this release does not read."""
    if len(data) < HEADER.size:
        raise StoreUnavailable(f"the stored value {key} is damaged: only {len(data)} bytes")
    found, version, checksum = HEADER.unpack_from(data)
    if found != kind:
        raise StoreUnavailable(f"the stored value {key} is damaged: its kind is {found!r}, not {kind!r}")
    if version != FORMAT:
        raise StoreUnavailable(f"the stored value {key} has format {version}; this release reads format {FORMAT}")
    body = data[HEADER.size :]
    if zlib.crc32(body) != checksum:
        raise StoreUnavailable(f"the stored value {key} is damaged: its checksum does not match")
    return body
