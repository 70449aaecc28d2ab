"""What a wrong serving looks like: pure functions over scores (n, outputs) and token counts."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
FEW = 8
"""Of fewer conversations nothing is said that could be chance."""
ROUNDED = 0.005
"""Rounding to bfloat16 changes a probability by less."""


def count_trap(found: Sequence[int], expected: Sequence[int]) -> str:
    """Why an engine's token counts are not the tokenizer's."""
    more = np.subtract(found, expected)
    if (more == 1).all():
        return "every conversation has one token more: a doubled BOS, or a token appended"
    if (more <= 0).all():
        return "conversations have fewer tokens: the chat template is dropped, or is another"
    return "the token counts differ: another tokenizer or chat template"


def is_doubled(found: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether the tokens found are those expected with the first one twice."""
    return list(found) == [*expected[:1], *expected]


def activation_trap(found: Scores, raw: Scores, tolerance: Scores) -> str | None:
    """The activation behind which the scores are the raw ones; its slope is 1/2 at most."""
    for name, scores in {"sigmoid": sigmoid(raw), "softmax": softmax(raw)}.items():
        if (np.abs(found - scores) <= np.maximum(tolerance / 2, ROUNDED)).all() and (abs(found - 0.5) <= 0.5).all():
            return f"a {name} is left on"
    return None


def sigmoid(raw: Scores) -> Scores:
    """1 / (1 + exp(-raw)), without overflow."""
    probabilities: Scores = np.exp(-np.logaddexp(0.0, -raw))
    return probabilities


def softmax(raw: Scores) -> Scores:
    """Of each row."""
    powers: Scores = np.exp(raw - raw.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def range_trap(scores: Scores) -> str | None:
    """Scores that are all probabilities."""
    if len(scores) < FEW or not ((scores >= 0) & (scores <= 1)).all():
        return None
    if scores.shape[1] > 1 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return "all scores lie in [0, 1] and add up to 1: a softmax is left on"
    return "all scores lie in [0, 1]: a sigmoid is left on"


def tied(scores: Scores, apart: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs (i, j) that are `apart` (n, n) and have the very same scores."""
    return [(i, j) for i, j in combinations(range(len(scores)), 2) if apart[i, j] and (scores[i] == scores[j]).all()]


def is_rounded(scores: Scores) -> bool:
    """Whether every score is a number of bfloat16 or float16, as those of a head in float32 are not."""
    single = scores.astype(np.float32)
    return len(scores) >= FEW and bool(((single.view(np.uint32) & 0x1FFF) == 0).all() and (single == scores).all())


def flips(found: Scores, expected: Scores, tolerance: Scores) -> int:
    """Pairs of conversations further apart than the tolerance that stand in another order, over all outputs."""
    i, j = np.triu_indices(len(found), 1)
    wide = np.abs(expected[i] - expected[j]) > tolerance
    return int((wide & (np.sign(found[i] - found[j]) != np.sign(expected[i] - expected[j]))).sum())
