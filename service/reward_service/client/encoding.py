"""A request body as JSON, and where in it something is that JSON cannot hold."""

import json
import math
from collections.abc import Mapping

VALID = "valid: str, int, finite float, bool, None, list, tuple, and dict with str keys"


def encoded(body: Mapping[str, object]) -> bytes:
    """The bytes of a body; TypeError names the first value that JSON cannot hold.

    Half of a surrogate pair goes as an escape: the service refuses that conversation and answers the others.
    """
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(_complaint(body) or f"the request cannot be written as JSON: {error}") from error
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()


def _complaint(body: object) -> str | None:
    try:
        return _unfit(body, "")
    except RecursionError:
        return None


def _unfit(value: object, path: str) -> str | None:
    """What is wrong with the first value that is not JSON, or None."""
    if isinstance(value, dict):
        if odd := next((key for key in value if not isinstance(key, str)), None):
            return f"{path}: the key {odd!r} is a {type(odd).__name__}; {VALID}"
        found = (_unfit(one, f"{path}.{key}".lstrip(".")) for key, one in value.items())
        return next((one for one in found if one), None)
    if isinstance(value, list | tuple):
        found = (_unfit(one, f"{path}[{i}]") for i, one in enumerate(value))
        return next((one for one in found if one), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: {value!r} is not JSON; {VALID}"
    if value is not None and not isinstance(value, str | int | float | bool):
        return f"{path}: {value!r:.80} is a {type(value).__module__}.{type(value).__name__}; {VALID}"
    return None
