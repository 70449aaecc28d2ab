"""One chunk of rows: its requests, what is tried again, and what is no matter of single rows."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_service.errors import JobStopped, NotFinite
from reward_service.jobs.pinning import expectation
from reward_service.jobs.plan import JobPlan
from reward_service.jobs.reading import Problem
from reward_service.jobs.rows import Row
from reward_service.jobs.scorers import Refused, Scorer
from reward_service.schemas import ConversationScore, ScoreAnswer

TRIES = 3
PAUSE_S = 0.5
OUTAGE = 16
"""When so many rows of a request all fail for reasons that are not theirs, the service is down and not the rows bad."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a chunk, None for rows that were not sent, and the tokens that they took."""

    scores: list[ConversationScore | None]
    tokens: int


class ChunkScorer:
    """Scores chunks, so many at once as the plan allows, and only by what the pin names."""

    def __init__(self, plan: JobPlan, scorer: Scorer, pin: Json) -> None:
        self._objective = plan.objective
        self._scorer = scorer
        self._pin = pin
        self._expect = expectation(pin, allow_baseline_changes=plan.allow_baseline_changes)
        self._gate = asyncio.Semaphore(plan.concurrency)

    async def score(self, chunk: Sequence[Row]) -> Scored:
        """The scores of a chunk; rows that failed for reasons that are not theirs are tried again."""
        sent = {i: row.conversation for i, row in enumerate(chunk) if not isinstance(row.conversation, Problem)}
        scores: dict[int, ConversationScore | None] = {}
        tokens = 0
        async with self._gate:
            for attempt in range(TRIES):
                await asyncio.sleep(PAUSE_S * attempt)
                scored = await self._sent(list(sent.values()))
                tokens += scored.tokens
                scores |= dict(zip(sent, scored.scores, strict=True))
                sent = {i: conversation for i, conversation in sent.items() if _blameless(scores[i])}
                if not sent:
                    break
        _check_outage(list(scores.values()))
        return Scored([scores.get(i) for i in range(len(chunk))], tokens)

    async def _sent(self, conversations: Sequence[Json]) -> Scored:
        """The scores of all conversations, in order; a request that is refused is halved, down to the row."""
        if not conversations:
            return Scored([], 0)
        try:
            answer = await self._scorer.score(conversations, self._objective, self._expect)
        except Refused as error:
            if len(conversations) == 1:
                return Scored([ConversationScore(id=None, reward=None, terms=[], error=error.body)], 0)
            half = len(conversations) // 2
            first, second = await self._sent(conversations[:half]), await self._sent(conversations[half:])
            return Scored([*first.scores, *second.scores], first.tokens + second.tokens)
        self._check(answer, len(conversations))
        return Scored(list(answer.scores), answer.usage.tokens)

    def _check(self, answer: ScoreAnswer, asked: int) -> None:
        """No number of another objective or model is taken, even from a service that overlooks `expect`."""
        fingerprints = {name: used.fingerprint for name, used in answer.models.items()}
        if answer.objective_hash != self._pin["objective_hash"] or fingerprints != self._expect["models"]:
            raise JobStopped("the service answered with another objective or model than it was asked for")
        if len(answer.scores) != asked:
            raise JobStopped(f"the service answered {len(answer.scores)} scores for {asked} conversations")


def _blameless(score: ConversationScore | None) -> bool:
    """Whether a row failed for a reason that may pass."""
    if score is None or score.error is None or score.error.code == NotFinite.code:
        return False
    return score.error.status in (429, 502, 503, 504)


def _check_outage(scores: Sequence[ConversationScore | None]) -> None:
    if len(scores) >= OUTAGE and all(_blameless(score) for score in scores):
        error = scores[0].error if scores[0] is not None else None
        raise JobStopped(
            f"the service cannot score: {error.detail if error else ''}; run the same command again to go on"
        )
