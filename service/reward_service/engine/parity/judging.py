"""The verdict on what an engine said of the golden conversations, with the numbers behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Parity
from reward_service.engine.parity import traps
from reward_service.engine.parity.observing import Observed
from reward_service.engine.parity.reference import (
    Ids,
    ReferenceFailed,
    last_token_scores,
    pad_token_id,
    reference_scores,
)
from reward_service.engine.parity.traps import Scores

NOISES = 3.0
"""The tolerance is so many times the most that the served number type changes a score of Transformers itself."""
EXACT = 1e-3
"""The least tolerance, relative to the largest score: other kernels add in another order."""
BOUND = {"float32": 1e-3, "float16": 0.0125, "bfloat16": 0.1}
"""The tolerance relative to the largest score where the noise is not measured. Rounding to bfloat16 changed the scores
of random models of 24 to 48 layers by up to 4 %; float16 rounds 8 times as finely."""


@dataclass(frozen=True, slots=True)
class Served:
    """What an engine said, the token ids that it rendered (if it says so), and whether its scores are raw for sure."""

    observed: Observed
    ids: list[Ids] | None
    raw: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The numbers, and why the model is refused; None when it is not."""

    parity: Parity
    refusal: str | None


def against_reference(served: Served, ids: Sequence[Ids], folder: Path, config: ClassifierConfig) -> Verdict:
    """Compares with Transformers in float32; the tolerance is measured with Transformers in the served number type."""
    seen = served.observed
    unknown = Parity("reference", len(seen.names), None, None)
    if (problem := token_problem(served, ids)) is not None:
        return Verdict(unknown, problem)
    expected = reference_scores(folder, ids, trust_remote_code=config.trust_remote_code)
    if expected.shape != seen.together.shape:
        return Verdict(unknown, f"it gives {seen.together.shape[1]} outputs, and the model has {expected.shape[1]}")
    if not np.isfinite(expected).all():
        return Verdict(unknown, "Transformers itself gives NaN or an infinity where the engine gives a number")
    tolerance = measured_tolerance(folder, ids, expected, config)
    parity = _parity("reference", np.stack([seen.together, seen.alone]), expected, tolerance)
    good = [bool((np.abs(found - expected) <= tolerance).all()) for found in (seen.together, seen.alone)]
    if not all(good):
        wrong = seen.alone if good[0] else seen.together
        trap = "the scores depend on the batch" if any(good) else _trap(wrong, expected, ids, tolerance, folder, config)
        return Verdict(parity, f"{trap}; {_differences(seen.names, wrong, expected, tolerance)}")
    rounded = traps.is_rounded(seen.together) and not traps.is_rounded(expected)
    return Verdict(parity, _tie_problem(seen, (expected[:, None] != expected[None]).any(axis=2), rounded))


def against_itself(served: Served, ids: Sequence[Ids] | None, dtype: str) -> Verdict:
    """Compares each score with that of the conversation alone; `ids` are the tokenizer's, if it is here."""
    seen = served.observed
    if ids is not None and (problem := token_problem(served, ids)) is not None:
        return Verdict(Parity("self", len(seen.names), None, None), problem)
    tolerance = BOUND[dtype] * np.abs(seen.alone).max(axis=0)
    parity = _parity("self", seen.together[None], seen.alone, tolerance)
    if (np.abs(seen.together - seen.alone) > tolerance).any():
        differences = _differences(seen.names, seen.together, seen.alone, tolerance, by="alone")
        return Verdict(parity, f"the scores depend on the batch; {differences}")
    if not served.raw and (trap := traps.range_trap(seen.together)) is not None:
        return Verdict(parity, f"{trap}; {_span(seen.together)}")
    rows: Sequence[object] = ids or range(len(seen.names))
    apart = np.array([[one != other for other in rows] for one in rows])
    return Verdict(parity, _tie_problem(seen, apart, traps.is_rounded(seen.together)))


def token_problem(served: Served, ids: Sequence[Ids]) -> str | None:
    """Why the engine's tokens are not those of the model's own tokenizer and template."""
    seen, expected = served.observed, [len(row) for row in ids]
    if seen.tokens != expected:
        at = next(i for i, count in enumerate(expected) if seen.tokens[i] != count)
        found = served.ids[at] if served.ids is not None else None
        doubled = found is not None and traps.is_doubled(found, ids[at])
        trap = "the BOS is doubled" if doubled else traps.count_trap(seen.tokens, expected)
        return f"{trap}; {seen.names[at]!r} has {seen.tokens[at]} tokens, by the tokenizer alone {expected[at]}"
    for name, found, row in zip(seen.names, served.ids or (), ids, strict=False):
        if list(found) != list(row):
            return f"the tokens of {name!r} are not those of the tokenizer alone, though as many"
    return None


def measured_tolerance(folder: Path, ids: Sequence[Ids], expected: Scores, config: ClassifierConfig) -> Scores:
    """(outputs,): what rounding to the served number type may change; a bound where Transformers cannot compute so."""
    exact: Scores = EXACT * np.abs(expected).max(axis=0)
    if config.dtype == "float32":
        return exact
    try:
        rounded = reference_scores(folder, ids, dtype=config.dtype, trust_remote_code=config.trust_remote_code)
    except ReferenceFailed:  # the CPU lacks a kernel for it
        rounded = np.full_like(expected, np.nan)
    if not np.isfinite(rounded).all():
        return exact * (BOUND[config.dtype] / EXACT)
    noise: Scores = NOISES * np.abs(rounded - expected).max(axis=0)
    return np.maximum(noise, exact)


def _trap(
    found: Scores, expected: Scores, ids: Sequence[Ids], tolerance: Scores, folder: Path, config: ClassifierConfig
) -> str:
    if (trap := traps.activation_trap(found, expected, tolerance)) is not None:
        return trap
    pad = pad_token_id(folder)
    suspects: list[tuple[str, Sequence[Ids]]] = [("the literal last token is pooled", ids)]
    if pad is not None:
        suspects.append(("a trailing pad token is pooled", [[*row, pad] for row in ids]))
    for trap, rows in suspects:
        scores = last_token_scores(folder, rows, trust_remote_code=config.trust_remote_code)
        if scores is not None and (np.abs(found - scores) <= tolerance).all():
            return trap
    return "the scores are not the model's"


def _parity(mode: str, found: Scores, expected: Scores, tolerance: Scores) -> Parity:
    """The difference that is largest beside its tolerance; `found` is (ways, n, outputs)."""
    errors = np.abs(found - expected).max(axis=(0, 1))
    worst = int(np.argmax(errors / np.maximum(tolerance, np.finfo(np.float64).tiny)))
    return Parity(mode, len(expected), float(errors[worst]), float(tolerance[worst]))


def _differences(
    names: Sequence[str], found: Scores, expected: Scores, tolerance: Scores, *, by: str = "by Transformers"
) -> str:
    over = np.abs(found - expected) - tolerance
    row, output = divmod(int(np.argmax(over)), over.shape[1])
    pairs = len(names) * (len(names) - 1) // 2 * found.shape[1]
    return (
        f"{names[row]!r} scores {found[row, output]:.6g} and {by} {expected[row, output]:.6g}, "
        f"at most {tolerance[output]:.2g} apart allowed; {int((over > 0).any(axis=1).sum())} of {len(names)} "
        f"conversations differ, {traps.flips(found, expected, tolerance)} of {pairs} pairs stand in another order"
    )


def _tie_problem(seen: Observed, apart: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]", rounded: bool) -> str | None:
    ties = traps.tied(seen.together, apart)
    if rounded:
        return f"every score is rounded to half precision: the head does not run in float32; {len(ties)} pairs tie"
    if not ties:
        return None
    i, j = ties[0]
    what = "all scores are equal" if len(ties) == apart.sum() // 2 else f"{len(ties)} pairs of conversations tie"
    return f"{what}: {seen.names[i]!r} and {seen.names[j]!r} both score {_shown(seen.together[i])}"


def _span(scores: Scores) -> str:
    return f"they go from {scores.min():.6g} to {scores.max():.6g}"


def _shown(row: Scores) -> str:
    return ", ".join(f"{number:.6g}" for number in row)
