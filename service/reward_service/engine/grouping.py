"""Which waiting items lie end to end in the next batch: distinct tokens count, and groups stay whole where they fit."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from reward_service.engine.prefixes import Overlaps
from reward_service.engine.waiting import Work

GROUP_SHARE = 8
"""Neighbours belong to one group when they have at least this part (an eighth) of the shorter one in common: a system
prompt that everybody has is less, the prompt of a rollout more."""

FULL = 0.98
"""No more is looked for when a batch holds so much of what it may."""
CUT_BELOW = 0.75
"""A group that does not fit is cut only where a batch would hold less than this: cut, its prefix is computed twice."""


class Pack:
    """A batch in the making: places of sorted rows, and how many distinct tokens they are."""

    def __init__(self, lengths: Sequence[int], overlaps: Overlaps | None, limit: int) -> None:
        self.taken: list[int] = []
        self.tokens = 0
        self._lengths = lengths
        self._overlaps = overlaps
        self._limit = limit

    def filled(self, share: float) -> bool:
        """Whether so much of it is taken."""
        return self.tokens >= share * self._limit

    def add(self, row: int) -> None:
        """Takes a row, whether it fits or not."""
        self.tokens += self._more(row)
        insort(self.taken, row)

    def add_whole(self, rows: Sequence[int]) -> bool:
        """Takes all of the rows, or none when they do not fit."""
        before = self.tokens
        for number, row in enumerate(rows):
            self.add(row)
            if self.tokens > self._limit:
                self._remove(rows[: number + 1])
                self.tokens = before
                return False
        return True

    def add_fitting(self, rows: Iterable[int]) -> None:
        """Takes those of the rows that fit, in their order."""
        for row in rows:
            if self.tokens + self._more(row) <= self._limit:
                self.add(row)

    def _remove(self, rows: Iterable[int]) -> None:
        for row in rows:
            del self.taken[bisect_left(self.taken, row)]

    def _more(self, row: int) -> int:
        """Distinct tokens that a row adds: what comes after the longest prefix that one of the taken rows has."""
        place = bisect_left(self.taken, row)
        before = self.shared(self.taken[place - 1], row) if place else 0
        after = self.shared(row, self.taken[place]) if place < len(self.taken) else 0
        return self._lengths[row] - max(before, after)

    def shared(self, one: int, other: int) -> int:
        """Tokens that two rows have in common."""
        return self._overlaps.between(min(one, other), max(one, other)) if self._overlaps is not None else 0


def choose_packed(window: Sequence[Work], max_batch_tokens: int, *, sharing: bool) -> list[Work]:
    """The first of the window with its group, then the groups of the next most urgent.

    A group that does not fit waits for the next batch, unless this one would stay much less than full; of the first's
    group as much is taken as fits, its closest relatives first. An item of more than half a batch does not hold up
    others: it goes alone or with its group. One that is longer than a batch takes up to a batch of its relatives'
    own tokens along, since computing it again for each would cost more.
    """
    head = window[0]
    rows = sorted(range(len(window)), key=lambda number: window[number].sort_key) if sharing else range(len(window))
    works = [window[number] for number in rows]  # a row is a place in this order
    overlaps = Overlaps([work.rendered.ids for work in works]) if sharing else None
    limit = max_batch_tokens + (head.tokens if head.tokens > max_batch_tokens else 0)
    pack = Pack([work.tokens for work in works], overlaps, limit)
    groups = _by_urgency(_groups(works, overlaps), rows)
    if head.tokens * 2 > max_batch_tokens:
        groups = groups[:1]
    else:
        groups[1:] = [[row for row in group if works[row].tokens * 2 <= max_batch_tokens] for group in groups[1:]]

    first = groups[0][0]
    pack.add(first)
    groups[0] = sorted(groups[0][1:], key=lambda row: -pack.shared(first, row))
    others = {work.priority for work in window} - {head.priority}
    for priority in (head.priority, *sorted(others)):
        _fill(pack, [[row for row in group if works[row].priority == priority] for group in groups])
    return [works[row] for row in pack.taken]


def _groups(works: Sequence[Work], overlaps: Overlaps | None) -> list[list[int]]:
    """Rows of sorted works, cut where neighbours have little in common; each alone when nothing is shared."""
    groups: list[list[int]] = []
    for row, work in enumerate(works):
        in_common = overlaps.with_previous[row] if overlaps is not None and row else 0
        if in_common and in_common * GROUP_SHARE >= min(work.tokens, works[row - 1].tokens):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _by_urgency(groups: Iterable[list[int]], urgency: Sequence[int]) -> list[list[int]]:
    """Each group's most urgent member first, and the groups in the order of it; `urgency` of a row, least first."""
    return sorted((sorted(group, key=urgency.__getitem__) for group in groups), key=lambda group: urgency[group[0]])


def _fill(pack: Pack, groups: Sequence[Sequence[int]]) -> None:
    """The first group, or what fits of it, then whole groups, then parts of the others where much room is left."""
    if not pack.add_whole(groups[0]):
        pack.add_fitting(groups[0])
    too_large = [group for group in groups[1:] if not pack.filled(FULL) and not pack.add_whole(group)]
    for group in too_large:
        if pack.filled(CUT_BELOW):
            return
        pack.add_fitting(group)
