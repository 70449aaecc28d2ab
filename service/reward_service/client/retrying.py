"""When to try again, and after how long: plain functions."""

import time
from email.utils import parsedate_to_datetime

from reward_service.client.servers import random
from reward_service.client.steps import Lost, Reply
from reward_service.schemas import ConversationScore

RETRIED = frozenset({408, 429, 502, 503, 504})
"""Statuses of a service that is busy, restarting or gone. Every call may be sent twice: a write carries a key."""
FAILED = frozenset({502, 503})
"""Those that say something is wrong with the replica."""
UNCLEAR = frozenset({408, 504})
"""Those that may be the fault of the request, the way or the replica."""
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 5.0
SPREAD = 0.25
FINAL_CODES = frozenset({"not_finite"})
"""A model that gives NaN for a conversation gives it again."""
ENGINE_TRIES = 3
"""A conversation may itself be what the engine fails on."""


def backoff_s(failures: int, left_s: float) -> float:
    """Exponential backoff with full jitter: anything up to a bound that doubles with each failure (from 1 on).

    The bound is no more than what is left until the deadline: a wait of the client's own does not end a call early,
    save in the last FIRST_BACKOFF_S.
    """
    bound_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 10), max(left_s, FIRST_BACKOFF_S))
    return random.uniform(0.0, bound_s)


def wait_s(outcome: Reply | Lost, failures: int, left_s: float) -> float:
    """How long to leave a server alone after so many failures of a call there.

    Never less than its Retry-After says, and up to a quarter more: those who were told the same do not come together.
    """
    told = retry_after_s(outcome.headers.get("retry-after")) if isinstance(outcome, Reply) else None
    if told is None:
        return backoff_s(failures, left_s)
    return max(told, FIRST_BACKOFF_S) * (1.0 + random.uniform(0.0, SPREAD))


def retry_after_s(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds a number of them or a date; None without a valid one."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def is_retried(outcome: Reply | Lost) -> bool:
    """Whether the same request may succeed later, or at another replica."""
    return isinstance(outcome, Lost) or outcome.status in RETRIED


def has_worked(outcome: Reply | Lost) -> bool | None:
    """What an outcome says about the replica; None: nothing."""
    if isinstance(outcome, Lost) or outcome.status in FAILED:
        return False
    return None if outcome.status in UNCLEAR else True


def may_succeed(score: ConversationScore, tries: int) -> bool:
    """Whether a conversation that has an error after so many tries may get a reward by another."""
    if score.error is None or score.error.status not in RETRIED or score.error.code in FINAL_CODES:
        return False
    return score.error.code != "engine_failed" or tries < ENGINE_TRIES
