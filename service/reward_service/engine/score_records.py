"""How a kept score lies in the store: its key, and a binary record that shows when it is damaged.

    score/<fingerprint>/<token ids and pooled index>   the outputs, 23 bytes and 8 for each output

<fingerprint> is that of the model, <token ids and pooled index> the 64 hexadecimal digits of their BLAKE2b hash.
"""

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.rendering import Rendered

FORMAT = b"RWSC\x01"
HEAD = struct.Struct("<dH")
CHECK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """The outputs of one item, read-only, and when they were kept (seconds since the epoch)."""

    outputs: NDArray[np.float64]
    since: float


def score_key(fingerprint: str, rendered: Rendered) -> str:
    """Where the score of an item by a model lies."""
    digest = hashlib.blake2b(rendered.pooled_index.to_bytes(8, "little"), digest_size=32)
    digest.update(rendered.ids.astype("<i4", copy=False).tobytes())
    return f"score/{fingerprint}/{digest.hexdigest()}"


def pack(key: str, kept: Kept) -> bytes:
    """The record of a score; it is valid under its own key only."""
    body = FORMAT + HEAD.pack(kept.since, len(kept.outputs)) + kept.outputs.astype("<f8", copy=False).tobytes()
    return body + _check(key, body)


def unpack(key: str, record: bytes) -> Kept | None:
    """The score of a record; None when it is damaged, of another format, or another key's."""
    body, start = record[:-CHECK_BYTES], len(FORMAT) + HEAD.size
    if len(body) < start or not body.startswith(FORMAT) or _check(key, body) != record[-CHECK_BYTES:]:
        return None
    since, count = HEAD.unpack_from(body, len(FORMAT))
    if len(body) != start + 8 * count:
        return None
    outputs = np.frombuffer(body, dtype="<f8", offset=start).astype(np.float64, copy=False)
    return Kept(outputs, since) if np.isfinite(outputs).all() else None


def _check(key: str, body: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + body, digest_size=CHECK_BYTES).digest()
