"""What the client raises.

ClientError
  RequestFailed         the service answered with an error that no retry can mend
    Conflict            409
      ExpectationFailed 409 for `expect`: the service is not, or no longer, what the run was pinned to
  Unavailable           no answer until the deadline
  AnswersDisagree       parts of one call, or of one pinned run, were answered by different models or recipes
  ScoringFailed         some conversations have no reward
"""

import json
from collections.abc import Mapping, Sequence

from reward_service.client.steps import Reply
from reward_service.schemas import ConversationScore

MOST_QUOTED = 500


class ClientError(Exception):
    """What the client raises; never a number in its place."""


class RequestFailed(ClientError):
    """The service answered with an error; `status`, `code`, `detail` and `request_id` are the service's own."""

    def __init__(self, status: int, code: str, detail: str, request_id: str | None) -> None:
        super().__init__(status, code, detail, request_id)
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail} (request {self.request_id})"


class Conflict(RequestFailed):
    """409: the request does not fit the state of the service."""


class ExpectationFailed(Conflict):
    """409: the objective, a model or a policy's baselines are not what `expect` (or the pinned run) names."""


class Unavailable(ClientError):
    """The service gave no answer until the deadline.

    `tries` counts the requests sent, `waited_s` is the time spent, `reasons` counts why they failed, by server.
    """

    def __init__(self, what: str, tries: int, waited_s: float, reasons: Mapping[str, int], last: str | None) -> None:
        super().__init__(what, tries, waited_s, dict(reasons), last)
        self.what = what
        self.tries = tries
        self.waited_s = waited_s
        self.reasons = dict(reasons)
        self.last = last

    def __str__(self) -> str:
        told = "; ".join(f"{reason} (x {count})" for reason, count in self.reasons.items()) or "nothing was sent"
        last = f"; last: {self.last}" if self.last else ""
        return f"{self.what}: no answer in {self.waited_s:.1f} s and {self.tries} tries: {told}{last}"


class AnswersDisagree(ClientError):
    """Two answers that must be of one kind are not: their numbers must not be mixed."""


class ScoringFailed(ClientError):
    """Some conversations have no reward; `failed` holds them by index. No number stands in for them."""

    def __init__(self, scores: Sequence[ConversationScore]) -> None:
        super().__init__(scores)
        self.failed = {i: score for i, score in enumerate(scores) if score.error is not None}
        self._count = len(scores)

    def __str__(self) -> str:
        index, first = next(iter(self.failed.items()))
        reason = first.error.detail if first.error else ""
        return f"{len(self.failed)} of {self._count} conversations have no reward; conversations[{index}]: {reason}"


def refused(reply: Reply) -> RequestFailed:
    """The exception for an answer that is an error."""
    try:
        problem = json.loads(reply.content)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "not_a_problem_document", reply.content[:MOST_QUOTED].decode("utf-8", "replace")
    kind: type[RequestFailed] = RequestFailed
    if reply.status == 409:
        kind = ExpectationFailed if code == "expectation_failed" else Conflict
    return kind(reply.status, code, detail, reply.headers.get("x-request-id"))
