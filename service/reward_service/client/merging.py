"""One answer from the answers to the parts of a call."""

from collections.abc import Sequence
from dataclasses import dataclass

from reward_service.client.agreeing import Identity
from reward_service.client.calls import Json
from reward_service.client.errors import Unavailable
from reward_service.client.servers import Server
from reward_service.client.splitting import Part
from reward_service.schemas import ConversationScore, ErrorBody, PolicyUsed, Recipe, ScoreAnswer, Timings, Usage


@dataclass(frozen=True, slots=True)
class Piece:
    """The answer to some conversations of a call, and which server gave it."""

    part: Part
    answer: ScoreAnswer
    server: Server

    @property
    def scores(self) -> list[tuple[int, ConversationScore]]:
        """The score of each conversation, by its index in the call."""
        return list(zip(self.part, self.answer.scores, strict=True))


@dataclass(frozen=True, slots=True)
class Missing:
    """Conversations of a call that nobody answered."""

    part: Part
    error: Unavailable


def merged(conversations: Sequence[Json], objective: str | None, pieces: Sequence[Piece | Missing]) -> ScoreAnswer:
    """All conversations in the order of the call. Of a conversation that was tried again, the last piece counts.

    AnswersDisagree when the pieces are not of one kind.
    """
    answered = [piece for piece in pieces if isinstance(piece, Piece)]
    if len(pieces) == 1 and answered:
        return answered[0].answer
    _check_agreement(answered)
    scores: dict[int, ConversationScore] = {}
    for piece in pieces:
        scores |= _scores(conversations, piece)
    in_order = [scores[i] for i in range(len(conversations))]
    return _joined([piece.answer for piece in answered] or [_nobodys(objective)], in_order)


def _check_agreement(pieces: Sequence[Piece]) -> None:
    for piece in pieces[1:]:
        where = f"answers of {pieces[0].server.url} and {piece.server.url} to one call"
        Identity.of(pieces[0].answer).check(Identity.of(piece.answer), where)


def _scores(conversations: Sequence[Json], piece: Piece | Missing) -> dict[int, ConversationScore]:
    if isinstance(piece, Piece):
        return dict(piece.scores)
    error = ErrorBody(code="unavailable", title="Service unavailable", status=503, detail=str(piece.error))
    return {i: ConversationScore(id=sent_id(conversations[i]), reward=None, terms=[], error=error) for i in piece.part}


def sent_id(conversation: Json) -> str | None:
    """The id that a conversation was given."""
    identity = conversation.get("id") if isinstance(conversation, dict) else None
    return identity if isinstance(identity, str) else None


def _joined(answers: Sequence[ScoreAnswer], scores: list[ConversationScore]) -> ScoreAnswer:
    """The answers as one: tokens add up, times are the longest, and of a policy the oldest state that was used."""
    policies: dict[str, PolicyUsed] = {}
    for policy, used in (item for answer in answers for item in answer.baselines.items()):
        policies[policy] = min(policies.get(policy, used), used, key=lambda one: one.revision)
    return answers[0].model_copy(
        update={
            "scores": scores,
            "models": {name: used for answer in answers for name, used in answer.models.items()},
            "baselines": policies,
            "usage": Usage(
                tokens=sum(answer.usage.tokens for answer in answers),
                tokens_computed=sum(answer.usage.tokens_computed for answer in answers),
                cached_scores=sum(answer.usage.cached_scores for answer in answers),
            ),
            "timings_ms": Timings(
                queue=max(answer.timings_ms.queue for answer in answers),
                compute=max(answer.timings_ms.compute for answer in answers),
                total=max(answer.timings_ms.total for answer in answers),
            ),
        }
    )


def _nobodys(objective: str | None) -> ScoreAnswer:
    """The answer of no server: it names no recipe and no model."""
    return ScoreAnswer(
        objective=objective or "",
        objective_hash="",
        recipe=Recipe(aggregate="", k=None, terms=[]),
        scores=[],
        models={},
        baselines={},
        usage=Usage(tokens=0, tokens_computed=0, cached_scores=0),
        timings_ms=Timings(queue=0.0, compute=0.0, total=0.0),
    )
