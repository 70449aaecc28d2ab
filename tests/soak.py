"""Twice as many requests as a service can answer, small or at full size."""

from dataclasses import dataclass
from functools import partial

from tests.overload import Texts, Visit, arrivals, capacity, quantile, queued_tokens, resident_mib, watched_memory
from tests.process import ServiceProcess

CONVERSATIONS = 16
WORDS = 60


@dataclass(frozen=True)
class Soak:
    """What came of it; memory in MiB: after the warm-up, in its last tenth, at most."""

    per_s: float
    visits: list[Visit]
    before_mib: float
    after_mib: float
    most_mib: float
    queued_after: float

    @property
    def accepted(self) -> list[Visit]:
        return [one for one in self.visits if one.status == 200]

    @property
    def latencies_s(self) -> list[float]:
        """Of accepted requests, from the time that they were let in."""
        return [one.ended - one.entered for one in self.accepted]

    def summary(self) -> dict[str, float]:
        statuses = [one.status for one in self.visits]
        return {
            "capacity_per_s": round(self.per_s, 2),
            "requests": len(self.visits),
            "accepted": len(self.accepted),
            "refused": statuses.count(429),
            "other": len(statuses) - len(self.accepted) - statuses.count(429),
            "p50_s": round(quantile(self.latencies_s, 0.5), 2),
            "p99_s": round(quantile(self.latencies_s, 0.99), 2),
            "longest_s": round(max(self.latencies_s, default=0.0), 2),
            "before_mib": round(self.before_mib),
            "after_mib": round(self.after_mib),
            "most_mib": round(self.most_mib),
        }


async def soak(service: ServiceProcess, *, timeout_s: float, warm_s: float, seconds: float, returning: float) -> Soak:
    """Measures the capacity, warms up at twice that, then goes on for so long; every request allows `timeout_s`.

    More where twice that is hardly too much: then the machine was slow just when it was measured.
    Without the score cache, which grows by each new conversation until it has all of its entries.
    """
    request = partial(Texts(WORDS).request, CONVERSATIONS, timeout_s=timeout_s, cache=False)
    per_s = await capacity(service.url, request, warm_s)
    while True:
        warm = await arrivals(service.url, request, per_s=2 * per_s, seconds=warm_s, returning=returning)
        if sum(bool(one.told_s) for one in warm) > len(warm) / 4:
            break
        per_s *= 1.5
    before = resident_mib(service.pid)
    watch, seen = await watched_memory(service.pid)
    visits = await arrivals(service.url, request, per_s=2 * per_s, seconds=seconds, returning=returning)
    watch.cancel()
    last = seen[-max(1, len(seen) // 10) :]
    return Soak(per_s, visits, before, sum(last) / len(last), max(seen), await queued_tokens(service.url))
