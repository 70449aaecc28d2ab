"""From a call to the request that is sent, and from the reply to the answer."""

import math
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from reward_service.client.attempts import Request
from reward_service.client.calls import Call, Json
from reward_service.client.encoding import encoded
from reward_service.client.errors import RequestFailed, refused
from reward_service.client.merging import sent_id
from reward_service.client.steps import Reply
from reward_service.errors import printable
from reward_service.schemas import ConversationScore, ScoreAnswer

A = TypeVar("A", bound=BaseModel)


def requested(call: Call[A], timeout_s: float, what: str | None = None) -> Request:
    """The request of a call; TypeError for a body that is not JSON."""
    content = None if call.body is None else encoded(call.body)
    timeout_s = math.inf if call.is_long else timeout_s
    return Request(what or f"{call.method} {call.path}", call.method, call.path, content, call.params, timeout_s)


def parsed(kind: type[A], reply: Reply) -> A:
    """The answer in a reply; RequestFailed with what the service said, or with what is wrong about its answer."""
    if not 200 <= reply.status < 300:
        raise refused(reply)
    try:
        return kind.model_validate_json(reply.content)
    except ValidationError as error:
        raise _not_an_answer(reply, f"it is no {kind.__name__}: {error.errors()[0]['msg']}") from error


def parsed_scores(conversations: Sequence[Json], reply: Reply) -> ScoreAnswer:
    """The answer to these conversations: a score for each, in their order, with a reward or an error."""
    answer = parsed(ScoreAnswer, reply)
    if len(answer.scores) != len(conversations):
        raise _not_an_answer(reply, f"it has {len(answer.scores)} scores for {len(conversations)} conversations")
    for i, (conversation, score) in enumerate(zip(conversations, answer.scores, strict=True)):
        sent = sent_id(conversation)
        if sent is not None and score.id not in (sent, printable(sent)):
            raise _not_an_answer(reply, f"scores[{i}] is of {score.id!r}, and conversation {sent!r} was asked for")
        if not _is_told(score):
            raise _not_an_answer(reply, f"scores[{i}] has the reward {score.reward} and the error {score.error}")
    return answer


def _is_told(score: ConversationScore) -> bool:
    """Whether it has a number or an error, and not both."""
    if score.reward is None:
        return score.error is not None
    return score.error is None and math.isfinite(score.reward)


def _not_an_answer(reply: Reply, reason: str) -> RequestFailed:
    return RequestFailed(reply.status, "not_an_answer", reason, reply.headers.get("x-request-id"))
