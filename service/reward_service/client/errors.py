"""What the client raises."""

from collections.abc import Sequence

from reward_service.schemas import ConversationScore


class RequestFailed(Exception):
    """The service answered with an error; `status`, `code`, `detail` and `request_id` are the service's own."""

    def __init__(self, status: int, code: str, detail: str, request_id: str | None) -> None:
        super().__init__(f"{status} {code}: {detail} (request {request_id})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id


class ScoringFailed(Exception):
    """Some conversations have no reward; `failed` holds them by index. No number stands in for them."""

    def __init__(self, scores: Sequence[ConversationScore]) -> None:
        self.failed = {i: score for i, score in enumerate(scores) if score.error is not None}
        index, first = next(iter(self.failed.items()))
        reason = first.error.detail if first.error else ""
        super().__init__(
            f"{len(self.failed)} of {len(scores)} conversations have no reward; conversations[{index}]: {reason}"
        )
