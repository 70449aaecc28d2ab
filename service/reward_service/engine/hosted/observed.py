"""The fingerprint of a model whose weights are elsewhere: what its server says of itself, and what it scores."""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Fingerprint
from reward_service.engine.fingerprint import description_parts
from reward_service.engine.hosted.description import Description
from reward_service.engine.hosted.server import Scores, Verified

STEPS = 32
"""Golden scores are rounded to so many steps of the largest, wider than bfloat16 noise. A score at the edge of a step
can still fall to the other side on another machine: then stored baselines are missing, never those of another model.
Servers of one fleet are compared within a tolerance instead, and share the first one's fingerprint."""


def observed_fingerprint(
    description: Description, config: ClassifierConfig, verified: Verified, max_tokens: int
) -> Fingerprint:
    """Declared revision, served id, golden scores, tokenizer, template and rendering options, hashed."""
    digest = hashlib.sha256()
    seen: dict[str, Any] = {
        "revision": config.revision,
        "served": verified.identity.served,
        "served_revision": verified.identity.revision,
        "golden": rounded(verified.golden).tolist(),
    }
    parts = [json.dumps(seen, sort_keys=True).encode(), *description_parts(description.folder, config, max_tokens)]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return Fingerprint(f"sha256:{digest.hexdigest()}", "observed")


def rounded(golden: Scores) -> NDArray[np.int64]:
    """Golden scores (n, labels) in whole steps of a power of two."""
    _, exponent = np.frexp(np.abs(golden).max(axis=0))
    steps: NDArray[np.int64] = np.rint(golden * (STEPS / np.exp2(exponent))).astype(np.int64)
    return steps
