"""Which waiting work makes the next batch: pure functions over the front of what a lane holds."""

from collections.abc import Iterable, Sequence

from reward_service.engine.forward import Layout
from reward_service.engine.grouping import choose_packed
from reward_service.engine.prefixes import with_previous
from reward_service.engine.waiting import Work

WINDOW_BATCHES = 8
"""A batch is chosen among the first so many batches' worth of waiting tokens (an item counts half a batch at most):
similar lengths or prefixes, near the front."""
WINDOW_ITEMS = 2048
"""And among so many items at most: choosing holds up those who submit."""
SMALL_PADDING = 1024
"""Padding tokens that cost less than another batch would."""


def front(works: Iterable[Work], max_batch_tokens: int, now: float) -> tuple[list[Work], list[Work]]:
    """The window that a batch is chosen from, and what nobody waits for any more on the way there."""
    window: list[Work] = []
    unwanted: list[Work] = []
    behind_head = 0
    for work in works:
        if not work.wanted(now):
            unwanted.append(work)
            continue
        behind_head += min(work.tokens, max_batch_tokens // 2) if window else 0
        if behind_head > WINDOW_BATCHES * max_batch_tokens or len(window) == WINDOW_ITEMS:
            break
        window.append(work)
    return window, unwanted


def choose(layout: Layout, window: Sequence[Work], max_batch_tokens: int) -> list[Work]:
    """The next batch: the first of the window and what goes best with it.

    Work of the first's priority fills the batch before other work does. The device computes at most
    `max_batch_tokens` in that layout, unless the first alone is longer.
    """
    if layout is Layout.PADDED:
        return _choose_padded(window, max_batch_tokens)
    return choose_packed(window, max_batch_tokens, sharing=layout is Layout.SHARED)


def borne(layout: Layout, works: Sequence[Work]) -> list[int]:
    """Tokens that the device computes for each item of a batch, without padding.

    Shared, an item bears what comes after the prefix that it has in common with the item before it in the order of
    their ids, so that the sum is the distinct tokens of the batch.
    """
    tokens = [work.tokens for work in works]
    if layout is not Layout.SHARED:
        return tokens
    order = sorted(range(len(works)), key=lambda index: works[index].sort_key)
    for index, prefix in zip(order, with_previous([works[index].rendered.ids for index in order]), strict=True):
        tokens[index] -= prefix
    return tokens


def computed_tokens(layout: Layout, works: Sequence[Work]) -> int:
    """Tokens that the device computes for a batch: padding included, shared prefixes once."""
    if layout is Layout.PADDED:
        return len(works) * max(work.tokens for work in works)
    return sum(borne(layout, works))


def _choose_padded(window: Sequence[Work], max_batch_tokens: int) -> list[Work]:
    """The first, and those behind it whose length is closest, padding included."""
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
