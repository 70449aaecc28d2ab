"""Large requests against a tiny token budget, small or at full size."""

import statistics
from dataclasses import dataclass
from functools import partial

from tests.overload import Texts, Visit, patient_callers, queued_tokens, watched_memory
from tests.process import ServiceProcess

CALLERS = 8
PATIENCE = 12
"""Callers wait so many times as long as a request takes alone: then about four of them are inside at once."""


@dataclass(frozen=True)
class Backlog:
    """What came of it: all visits, and the memory of the service at most in its first and in its second half, MiB."""

    visits: list[Visit]
    first_mib: float
    second_mib: float
    queued_after: float

    @property
    def ratios(self) -> list[float]:
        """How long those that were told to come back really waited to be let in, relative to what they were told."""
        return [one.waited_s / one.told_s[0] for one in self.visits if one.told_s]

    @property
    def longest_to_median(self) -> float:
        """Of the times until requests were answered."""
        totals = [one.total_s for one in self.visits]
        return max(totals) / statistics.median(totals)

    def summary(self) -> dict[str, float]:
        totals = [one.total_s for one in self.visits]
        return {
            "requests": len(self.visits),
            "told_to_come_back": len(self.ratios),
            "refusals": sum(len(one.told_s) for one in self.visits),
            "median_s": round(statistics.median(totals), 2),
            "longest_s": round(max(totals), 2),
            "longest_to_median": round(self.longest_to_median, 2),
            "least_wait_to_told": round(min(self.ratios, default=0.0), 2),
            "most_wait_to_told": round(max(self.ratios, default=0.0), 2),
            "first_mib": round(self.first_mib),
            "second_mib": round(self.second_mib),
        }


async def backlog(service: ServiceProcess, *, conversations: int, words: int, rounds: int) -> Backlog:
    """Eight callers send large requests, `rounds` each, and come back when they are told to."""
    texts = Texts(words)
    ((_, *alone),) = await patient_callers(service.url, [[texts.request(conversations) for _ in range(4)]])
    alone_s = statistics.median(one.total_s for one in alone)
    request = partial(texts.request, conversations, timeout_s=PATIENCE * alone_s, cache=False)
    watch, seen = await watched_memory(service.pid)
    requests = [[request() for _ in range(rounds)] for _ in range(CALLERS)]
    visits = [one for of_caller in await patient_callers(service.url, requests) for one in of_caller]
    watch.cancel()
    half = len(seen) // 2
    return Backlog(visits, max(seen[:half] or seen), max(seen[half:]), await queued_tokens(service.url))
