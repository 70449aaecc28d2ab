"""Every call from its description to its answer: what Client and AsyncClient share."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from reward_service.client.agreeing import Pin
from reward_service.client.answers import parsed, requested
from reward_service.client.attempts import Attempts
from reward_service.client.calls import Call, Json
from reward_service.client.failing import resolved
from reward_service.client.grouping import OPTION, Grouping
from reward_service.client.merging import Piece, merged
from reward_service.client.scoring import Scoring
from reward_service.client.servers import Servers
from reward_service.client.settings import Settings
from reward_service.client.steps import Flow
from reward_service.client.waiting import Waiting
from reward_service.schemas import ScoreAnswer

A = TypeVar("A", bound=BaseModel)


class Exchange:
    """What a client knows in one process: its replicas, the calls under way, and what the run is pinned to."""

    def __init__(self, settings: Settings, pin: Pin) -> None:
        self._settings = settings
        self._pin = pin
        self._servers = Servers(settings.urls)
        self._waiting = Waiting(settings.log_every_s)

    def call(self, call: Call[A]) -> Flow[A]:
        """The answer to a call; RequestFailed, or Unavailable at the deadline."""
        request = requested(call, self._settings.timeout_s)
        with self._waiting.call(request.what) as wait:
            attempts = Attempts(self._servers, self._settings, wait, self._deadline())
            answered = yield from attempts.send(request)
        return parsed(call.answer, answered.reply)

    def score(
        self, conversations: Sequence[Json], objective: str | None, options: Mapping[str, Any]
    ) -> Flow[ScoreAnswer]:
        """The answer for all conversations in their order, however many requests it takes.

        RequestFailed when the service refuses, AnswersDisagree when replicas are not alike. By `on_failure` Unavailable
        at the deadline, and ScoringFailed for conversations without a reward. ValueError for bad `advantages`.
        """
        conversations = list(conversations)
        grouping = Grouping.of(conversations, options.get(OPTION))
        options = {name: value for name, value in options.items() if name != OPTION}
        has_own = options.get("expect") is not None
        if not has_own:
            options = {**options, "expect": self._pin.expectation(objective)}
        is_pinned = self._settings.pin and not has_own
        scoring = Scoring(
            conversations,
            objective,
            options,
            servers=self._servers,
            settings=self._settings,
            waiting=self._waiting,
            deadline=self._deadline(),
        )
        pieces = yield from scoring.pieces()
        answer = merged(conversations, objective, pieces)
        if is_pinned and any(isinstance(piece, Piece) for piece in pieces):
            self._pin.hold(objective, answer)
        return resolved(grouping.advantaged(answer), self._settings.on_failure)

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.deadline_s
