"""Which waiting work makes the next batch: pure functions over the front of what a lane holds."""

from collections.abc import Iterable, Sequence

from reward_service.engine.waiting import Work

WINDOW_BATCHES = 8
"""A batch is chosen among the first so many batches' worth of waiting tokens: similar lengths, near the front."""
WINDOW_ITEMS = 2048
"""And among so many items at most: choosing holds up those who submit."""
SMALL_PADDING = 1024
"""Padding tokens that cost less than another batch would."""


def padded_tokens(lengths: Sequence[int]) -> int:
    """Tokens of a batch with its padding."""
    return len(lengths) * max(lengths)


def front(works: Iterable[Work], max_batch_tokens: int, now: float) -> tuple[list[Work], list[Work]]:
    """The window that a batch is chosen from, and what nobody waits for any more on the way there."""
    window: list[Work] = []
    unwanted: list[Work] = []
    behind_head = 0
    for work in works:
        if not work.wanted(now):
            unwanted.append(work)
            continue
        behind_head += work.tokens if window else 0
        if behind_head > WINDOW_BATCHES * max_batch_tokens or len(window) == WINDOW_ITEMS:
            break
        window.append(work)
    return window, unwanted


def choose(window: Sequence[Work], max_batch_tokens: int) -> list[Work]:
    """The next batch: the first of the window, and those behind it whose length is closest, padding included.

    Work of the first's priority fills the batch before other work does.
    """
    head, behind = window[0], window[1:]
    batch = [head]
    for same in (True, False):
        candidates = [work for work in behind if (work.priority == head.priority) is same]
        _grow(batch, sorted(candidates, key=lambda work: abs(work.tokens - head.tokens)), max_batch_tokens)
    return batch


def _grow(batch: list[Work], candidates: Iterable[Work], max_batch_tokens: int) -> None:
    rows, longest, total = len(batch), max(work.tokens for work in batch), sum(work.tokens for work in batch)
    for work in candidates:
        padded = (rows + 1) * max(longest, work.tokens)
        padding = padded - total - work.tokens
        if padded > max_batch_tokens or padding > max(SMALL_PADDING, padded // 4):
            continue
        batch.append(work)
        rows, longest, total = rows + 1, max(longest, work.tokens), total + work.tokens
