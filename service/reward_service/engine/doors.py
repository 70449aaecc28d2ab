"""Who may enter a device's queue now, and when the others are told to come back."""

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from reward_service.engine.engine import Priority
from reward_service.errors import Overloaded

ADMITTED_PART = 3
"""What is inside a door takes at most this part (a third) of the time that a newcomer has: it is answered in time even
with as much behind another door, and where the speed was thought higher than it is."""
ADMITTED_S = 1.0
"""So many seconds of work are let in, however little time a request allows."""
PATIENCE_S = 5.0
"""A place in line is kept so long beyond the time that its holder was told, and as long again as that time."""
MOST_IN_LINE = 1024
"""Who comes when so many are in line gets no place in it."""
LEARNS = 0.05
"""Weight of the newest caller in the share of those that come back."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request before the door: `key` knows it again when it comes back, `tokens` are those of the whole request.

    `first` are the tokens of its first slice, `left_s` is how long its caller waits.
    """

    key: int
    model: str
    tokens: int
    first: int
    left_s: float
    priority: Priority = Priority.ROLLOUT


@dataclass(frozen=True, slots=True)
class Place:
    """A place in line: what its holder brings, in how long it was told to come, and when that is."""

    seconds: float
    first: int
    told_s: float
    due: float

    @property
    def until(self) -> float:
        """How long it is kept."""
        return self.due + self.told_s + PATIENCE_S


@dataclass(frozen=True, slots=True)
class Room:
    """Of a device's budget: tokens, those that are taken, and whether a slice fits now."""

    budget: int
    held: int
    open: bool

    def lacks(self, tokens: int) -> int:
        """How many of so many tokens do not fit."""
        return self.held + tokens - self.budget


class Door:
    """Lets requests in while what is inside can be answered in time; those that it turns away form a line.

    Who comes back at the time that it was told goes before newcomers, who enter past a line only while the door's work
    and the room are less than half of what may be inside: so nothing stands still for callers that never come back.
    """

    def __init__(self, tokens_per_s: Callable[[str], float], clock: Callable[[], float] = time.monotonic) -> None:
        self.inside: Counter[str] = Counter()
        self._tokens_per_s = tokens_per_s
        self._clock = clock
        self._line: dict[int, Place] = {}
        self._returning = 1.0

    @property
    def work_s(self) -> float:
        """How long the device needs for what is inside; 0 as long as its speed is not known."""
        return sum(self._seconds(model, tokens) for model, tokens in self.inside.items() if tokens)

    def enter(self, arrival: Arrival, room: Room, urgent_s: float = 0.0) -> None:
        """Lets a request in, or raises Overloaded with the time after which it will be let in.

        `urgent_s` is how long the device needs for what is inside other doors and goes first; it may take half of the
        time, so that it cannot keep this door shut for ever.
        """
        now = self._clock()
        self._forget(now)
        most_s = max(arrival.left_s / ADMITTED_PART, ADMITTED_S)
        own_s = min(self._seconds(arrival.model, arrival.tokens), 0.75 * most_s)  # a request of any size enters at last
        line_s, line_tokens = self._before(arrival.key)
        wait_s = max(
            min(urgent_s, most_s / 2) + self.work_s + line_s + own_s - most_s,
            self._seconds(arrival.model, max(0, room.lacks(line_tokens + arrival.first))),
        )
        expected = self._is_due(arrival.key, now) and wait_s <= most_s / 4
        passes = self.work_s + own_s <= most_s / 2 and room.lacks(arrival.first) <= -room.budget / 2
        if not room.open or not (wait_s <= 0 or expected or passes):
            told_s = max(1.0, wait_s)
            raise self._turned_away(arrival, Place(own_s, arrival.first, told_s, now + told_s), room)
        self._came_back(arrival.key)

    def _turned_away(self, arrival: Arrival, place: Place, room: Room) -> Overloaded:
        """What a caller is told whose request gets this place in line, or keeps the one that it has."""
        if arrival.key in self._line or len(self._line) < MOST_IN_LINE:
            self._line[arrival.key] = place
        return Overloaded(
            f"{room.held} of {room.budget} tokens are queued and {len(self._line)} requests are in line;"
            f" come back in {place.told_s:.0f} s",
            retry_after_s=place.told_s,
        )

    def _seconds(self, model: str, tokens: int) -> float:
        speed = self._tokens_per_s(model)
        return tokens / speed if speed else 0.0

    def _before(self, key: int) -> tuple[float, int]:
        """Seconds and tokens of those before a request in line, or of all, that will probably come back."""
        before = list(itertools.takewhile(lambda one: one[0] != key, self._line.items()))
        seconds, tokens = sum(place.seconds for _, place in before), sum(place.first for _, place in before)
        return self._returning * seconds, round(self._returning * tokens)

    def _is_due(self, key: int, now: float) -> bool:
        return key in self._line and now >= self._line[key].due

    def _came_back(self, key: int) -> None:
        if self._line.pop(key, None) is not None:
            self._returning += LEARNS * (1 - self._returning)

    def _forget(self, now: float) -> None:
        """Clears the places that nobody came back for."""
        for key in [key for key, place in self._line.items() if place.until < now]:
            del self._line[key]
            self._returning -= LEARNS * self._returning
