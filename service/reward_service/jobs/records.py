"""The lines of the output and of the error file."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from reward_service.jobs.reading import Problem
from reward_service.jobs.rows import Row
from reward_service.schemas import ConversationScore, TermScore

TERM = ("raw", "raw_source", "std", "baseline", "baseline_source", "transformed")
REFERENCE = ("policy", "revision", "count", "mean", "std", "quantile", "method", "standard_error", "share_below")
IN_REQUEST = re.compile(r"\bconversations\[\d+\](?:: |\.)?")


def scored_line(row: Row, score: ConversationScore) -> bytes:
    """The output's line of a row with a reward: what stays the same in a job stands in its manifest."""
    terms = {term.name: _term(term) for term in score.terms}
    return _line({"id": row.id, "reward": score.reward, **row.kept, "terms": terms})


def error_line(row: Row, problem: Problem) -> bytes:
    """The error file's line of a row without one."""
    where = {"file": row.file, "line": row.line, "id": row.id}
    return _line({**where, "code": problem.code, "detail": problem.detail})


def problem_of(row: Row, score: ConversationScore | None) -> Problem | None:
    """Why a row has no reward; None when it has one. Places in the request mean nothing to the reader of a file."""
    if isinstance(row.conversation, Problem):
        return row.conversation
    if score is None or (score.reward is None and score.error is None):
        return Problem("internal_error", "the service gave neither a reward nor an error")
    return None if score.error is None else Problem(score.error.code, IN_REQUEST.sub("", score.error.detail))


def _term(term: TermScore) -> dict[str, Any]:
    reference, error = term.reference, term.error
    return {
        **{name: getattr(term, name) for name in TERM},
        "reference": None if reference is None else {name: getattr(reference, name) for name in REFERENCE},
        "error": None if error is None else {"code": error.code, "detail": error.detail},
    }


def _line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON in UTF-8; half a surrogate pair of a kept column stays the escape that it was."""
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(record), ensure_ascii=False, default=str, separators=(",", ":"))
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which a kept column of a Parquet file may hold and JSON cannot."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
