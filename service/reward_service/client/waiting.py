"""Says what a client waits for: one line every so often, however many calls wait."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

logger = logging.getLogger("reward_service.client")
MOST_REASONS = 4


@dataclass(eq=False, slots=True)
class Wait:
    """A call under way: what it is, since when, and what it waits for now."""

    what: str
    since: float = field(default_factory=time.monotonic)
    reason: str = "a free slot"


class Waiting:
    """The calls of a client that have no answer yet. A thread watches them while there are any."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._calls: set[Wait] = set()
        self._said_at = 0.0
        self._is_watched = False

    @contextmanager
    def call(self, what: str) -> Iterator[Wait]:
        """A call, while it is under way."""
        wait = Wait(what)
        with self._lock:
            self._calls.add(wait)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="reward-service-client-waiting", daemon=True).start()
        try:
            yield wait
        finally:
            with self._lock:
                self._calls.discard(wait)

    def _watch(self) -> None:
        while True:
            time.sleep(self._every_s / 10)
            with self._lock:
                if not self._calls:
                    self._is_watched = False
                    return
                line = self._line(time.monotonic())
            if line:
                logger.warning(line)

    def _line(self, now: float) -> str | None:
        """What to say now, if anything."""
        late = [wait for wait in self._calls if now - wait.since >= self._every_s]
        if not late or now - self._said_at < self._every_s:
            return None
        self._said_at = now
        oldest = min(late, key=lambda wait: wait.since)
        reasons = Counter(wait.reason for wait in late)
        told = "; ".join(f"{reason} (x {count})" for reason, count in reasons.most_common(MOST_REASONS))
        calls = "1 call" if len(late) == 1 else f"{len(late)} calls"
        return f"waiting {now - oldest.since:.0f} s for {calls}, the oldest {oldest.what}: {told}"
