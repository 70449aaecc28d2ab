"""The tries of one call: which server is next, how long to wait, when to give up."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from reward_service import __version__
from reward_service.client.errors import Unavailable, refused
from reward_service.client.retrying import backoff_s, has_worked, is_retried, wait_s
from reward_service.client.servers import Server, Servers, Taken
from reward_service.client.settings import Settings
from reward_service.client.steps import Enter, Flow, Lost, Release, Reply, Send, Sleep
from reward_service.client.waiting import Wait


@dataclass(frozen=True, slots=True)
class Request:
    """One request, before a server is chosen for it; `what` names it in logs and errors."""

    what: str
    method: str
    path: str
    content: bytes | None
    params: Mapping[str, str | int | float | bool]
    timeout_s: float


PROBE = Request("GET /health", "GET", "/health", None, {}, timeout_s=5.0)


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply that is not tried again: an answer, or a refusal."""

    server: Server
    reply: Reply


class Attempts:
    """Sends one request after the other until the deadline, which is theirs together (`time.monotonic`)."""

    def __init__(self, servers: Servers, settings: Settings, wait: Wait, deadline: float) -> None:
        self._servers = servers
        self._settings = settings
        self._wait = wait
        self._deadline = deadline
        self._not_before: dict[Server, float] = {}
        self._failures: Counter[Server] = Counter()
        self._reasons: Counter[str] = Counter()
        self._tries = 0
        self._last: str | None = None
        self._request_id = uuid4().hex

    def send(self, request: Request) -> Flow[Answered]:
        """The first reply that is not to be tried again; Unavailable at the deadline."""
        while True:
            release: Release | None = yield Enter(self._left_s())
            if release is None:
                raise self._given_up()
            try:
                taken = self._servers.take(self._not_before)
                answered = (yield from self._tried(taken, request)) if isinstance(taken, Taken) else None
            finally:
                release()
            if answered is not None:
                return answered
            if not isinstance(taken, Taken):
                yield from self._pause(taken)

    def failed_in_part(self, server: Server, reason: str) -> None:
        """Some conversations of an answer may succeed later: leave the server alone for a moment."""
        self._note(server, reason, reason)
        now = time.monotonic()
        self._not_before[server] = now + backoff_s(self._failures[server], self._deadline - now)

    def _tried(self, taken: Taken, request: Request) -> Flow[Answered | None]:
        worked: bool | None = None
        try:
            outcome = yield from self._outcome(taken, request)
            worked = has_worked(outcome)
        finally:
            self._servers.give_back(taken, worked)
        if isinstance(outcome, Reply) and not is_retried(outcome):
            return Answered(taken.server, outcome)
        self._note(taken.server, *_reason(outcome))
        now = time.monotonic()
        self._not_before[taken.server] = now + wait_s(outcome, self._failures[taken.server], self._deadline - now)
        return None

    def _outcome(self, taken: Taken, request: Request) -> Flow[Reply | Lost]:
        self._wait.reason = f"{taken.server.url} has not answered yet"
        if taken.is_probe:
            probe: Reply | Lost = yield self._sent(taken.server, PROBE)
            if has_worked(probe) is False:
                return probe
        self._tries += 1
        outcome: Reply | Lost = yield self._sent(taken.server, request)
        return outcome

    def _sent(self, server: Server, request: Request) -> Send:
        headers = {"x-request-id": self._request_id, "user-agent": f"reward-service/{__version__}"}
        if self._settings.api_key is not None:
            headers["authorization"] = f"Bearer {self._settings.api_key}"
        if request.content is not None:
            headers["content-type"] = "application/json"
        timeout_s = min(request.timeout_s, self._left_s())
        return Send(request.method, server.url + request.path, headers, request.content, request.params, timeout_s)

    def _pause(self, until: float) -> Flow[None]:
        """Wait until a server may be asked again; at once Unavailable if that is after the deadline."""
        if until >= self._deadline:
            raise self._given_up()
        yield Sleep(max(0.0, until - time.monotonic()))

    def _note(self, server: Server, kind: str, reason: str) -> None:
        self._failures[server] += 1
        self._reasons[f"{server.url}: {kind}"] += 1
        self._last = self._wait.reason = f"{server.url}: {reason}"

    def _left_s(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._given_up()
        return left

    def _given_up(self) -> Unavailable:
        waited_s = time.monotonic() - self._wait.since
        return Unavailable(self._wait.what, self._tries, waited_s, self._reasons, self._last)


def _reason(outcome: Reply | Lost) -> tuple[str, str]:
    """Why a try failed: what kind of failure it is, and all that is known."""
    if isinstance(outcome, Lost):
        return type(outcome.error).__name__, str(outcome)
    error = refused(outcome)
    kind = f"{error.status} {error.code}"
    return kind, f"{kind}: {error.detail}"
