"""One call of score: split, sent in parts, and what failed for a while tried again."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_service.client import calls
from reward_service.client.answers import parsed_scores, requested
from reward_service.client.attempts import Answered, Attempts, Request
from reward_service.client.calls import Json
from reward_service.client.errors import RequestFailed, Unavailable, refused
from reward_service.client.grouping import parted
from reward_service.client.merging import Missing, Piece
from reward_service.client.retrying import may_succeed
from reward_service.client.servers import Servers
from reward_service.client.settings import Settings
from reward_service.client.splitting import Part, parts, smaller
from reward_service.client.steps import Flow, Together
from reward_service.client.waiting import Waiting

TOO_LARGE = 413
Pieces = list[Piece | Missing]
logger = logging.getLogger("reward_service.client")


@dataclass(frozen=True, slots=True)
class Scoring:
    """Conversations to score with one objective before `deadline` (`time.monotonic`)."""

    conversations: Sequence[Json]
    objective: str | None
    options: Mapping[str, Any]
    servers: Servers
    settings: Settings
    waiting: Waiting
    deadline: float

    def pieces(self) -> Flow[Pieces]:
        """The answers to all parts, in any order.

        RequestFailed when one is refused. Without an answer until the deadline: Unavailable, or a Missing.
        """
        every = list(range(len(self.conversations)))
        return self._all(parts(self.conversations, every, self.settings.max_conversations_per_request))

    def _all(self, found: Sequence[Part]) -> Flow[Pieces]:
        if len(found) == 1:
            return (yield from self._part(found[0]))
        answered: list[Pieces] = yield Together([self._part(part) for part in found])
        return [piece for pieces in answered for piece in pieces]

    def _part(self, part: Part) -> Flow[Pieces]:
        request = self._request([self.conversations[i] for i in part])
        is_large = len(request.content or b"") > self.settings.max_bytes_per_request
        if is_large and (divided := smaller(self.conversations, part)):
            return (yield from self._all(divided))
        with self.waiting.call(request.what) as wait:
            attempts = Attempts(self.servers, self.settings, wait, self.deadline)
            try:
                answered = yield from attempts.send(request)
            except Unavailable as error:
                if self.settings.raises:
                    raise
                return [Missing(part, error)]
            if answered.reply.status != TOO_LARGE:
                piece = self._piece(part, answered)
                return [piece, *(yield from self._again(piece, attempts))]
        return (yield from self._divided(part, refused(answered.reply)))

    def _again(self, latest: Piece, attempts: Attempts) -> Flow[Pieces]:
        """Answers to the conversations whose error may pass, until there is none or the time is over."""
        pieces: Pieces = []
        while again := [i for i, score in latest.scores if may_succeed(score, tries=len(pieces) + 1)]:
            codes = Counter(score.error.code for _, score in latest.scores if score.error)
            attempts.failed_in_part(latest.server, ", ".join(f"{code} of {count}" for code, count in codes.items()))
            try:
                answered = yield from attempts.send(self._request([parted(self.conversations[i]) for i in again]))
            except Unavailable:
                break
            latest = self._piece(again, answered)
            pieces.append(latest)
        return pieces

    def _divided(self, part: Part, refusal: RequestFailed) -> Flow[Pieces]:
        """A part that the service finds too large, in smaller ones; the refusal when it must stay whole."""
        divided = smaller(self.conversations, part)
        if divided is None:
            raise refusal
        logger.warning("%d conversations are sent in smaller requests: %s", len(part), refusal)
        return (yield from self._all(divided))

    def _request(self, asked: Sequence[Json]) -> Request:
        conversations = "1 conversation" if len(asked) == 1 else f"{len(asked)} conversations"
        call = calls.score(asked, self.objective, **self.options)
        return requested(call, self.settings.timeout_s, f"POST /v1/score of {conversations}")

    def _piece(self, part: Part, answered: Answered) -> Piece:
        answer = parsed_scores([self.conversations[i] for i in part], answered.reply)
        return Piece(part, answer, answered.server)
