"""One server of a hosted model: what it serves, whether it gives raw scores, and how much it has to do."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.engine import Priority
from reward_service.engine.hosted.link import Link, Refused, Unavailable
from reward_service.engine.hosted.protocol import Answer, Call, HostedProtocol, Identity, Outgoing, Reply, Row, Way
from reward_service.errors import NotReady, ServiceError

PROBE_S = 120.0
SAME = 1e-3
"""Probabilities that differ by less are equal; a bfloat16 server that applies a sigmoid rounds it in float32."""
Scores = NDArray[np.float64]


MOST_ITEMS = 32
"""Servers admit a call item by item, and one item that finds no room fails the call: modest calls fail seldom."""


class State(StrEnum):
    """Whether a server is given work."""

    UP = "up"
    SUSPECT = "suspect"
    """A call failed: a check decides."""
    DOWN = "down"
    REFUSED = "refused"
    """It answers, and what it serves cannot be used."""


class Miscounted(Exception):
    """The server's tokens are not those that it was sent."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a server showed of itself: which way it gives raw scores, and those of the golden conversations.

    `proven` says that probabilities cannot be behind them.
    """

    identity: Identity
    way: Way
    golden: Scores
    proven: bool


@dataclass(slots=True, eq=False)
class Server:
    """A server and the calls that it has; `why` says what hinders it unless it is up."""

    link: Link
    protocol: HostedProtocol
    labels: tuple[str, ...]
    served_name: str | None
    state: State = State.DOWN
    why: str = "not checked yet"
    verified: Verified | None = None
    calls: int = 0
    outstanding: int = 0
    busy_until: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.link.url

    @property
    def most_items(self) -> int:
        """Of a call."""
        limit = None if self.verified is None else self.verified.identity.max_items
        return MOST_ITEMS if limit is None else min(MOST_ITEMS, limit)

    async def score(self, items: Sequence[Outgoing], priority: Priority, timeout_s: float) -> Sequence[Row]:
        """Raw scores of a batch; raises Refused, Miscounted or Unavailable."""
        if self.verified is None:
            raise Unavailable(self.why)
        known = self.verified
        return await self._call(Call(known.identity, known.way, items, priority), timeout_s)

    async def verify(self, golden: Sequence[Outgoing]) -> Verified:
        """Asks what it serves and scores the golden conversations, each in a call of its own.

        Raises NotReady when what it serves cannot be used, Unavailable when it does not answer.
        """
        try:
            await self.link.healthy(self.protocol.health)
            return await self._settled(golden)
        except Refused as refused:
            raise NotReady(str(refused)) from refused
        except Miscounted as counted:
            raise NotReady(f"{counted}: is its tokenizer that of `source`?") from counted
        except (LookupError, TypeError, ValueError) as error:
            raise NotReady(f"what it says of itself is not what such a server says: {error!r}") from error

    async def _settled(self, golden: Sequence[Outgoing]) -> Verified:
        identity = await self.protocol.identify(self.link, self.served_name)
        fit = [one for one in golden if identity.max_tokens is None or one.tokens <= identity.max_tokens]
        reasons: list[str] = []
        for way in self.protocol.ways:
            try:
                scores = await self._golden(identity, way, fit)
            except Refused as refused:
                reasons.append(f"{_named(way)}: {refused}")
                continue
            proven = way.sure or not _probabilities(scores) or await self._switches(identity, way, fit, scores)
            if proven:
                return Verified(identity, way, scores, proven=True)
            reasons.append(f"{_named(way)}: all {len(scores)} golden scores lie in [0, 1]")
        raise NotReady(
            f"it gives no raw scores ({'; '.join(dict.fromkeys(reasons))}): a sigmoid or softmax is left on, behind"
            " which high scores tie"
        )

    async def _switches(self, identity: Identity, way: Way, golden: Sequence[Outgoing], raw: Scores) -> bool:
        """Whether the server gives the probabilities of these raw scores when it is asked for them."""
        if way.activated is None:
            return False
        activated = await self._golden(identity, Way(way.path, way.activated), golden)
        expected = 1.0 / (1.0 + np.exp(-raw)) if raw.shape[1] == 1 else _softmax(raw)
        either = [expected, 1.0 / (1.0 + np.exp(-raw))]
        changed = np.abs(activated - raw).max() > SAME
        return bool(changed and any(np.abs(activated - one).max() <= 10 * SAME for one in either))

    async def _golden(self, identity: Identity, way: Way, golden: Sequence[Outgoing]) -> Scores:
        rows: list[list[float]] = []
        for one in golden:
            row = (await self._call(Call(identity, way, [one], salt=uuid.uuid4().hex), PROBE_S))[0]
            if isinstance(row, ServiceError):
                raise NotReady(f"a golden conversation of {one.tokens} tokens has no score: {row.detail}")
            if len(row) != len(self.labels):
                raise NotReady(f"it gives {len(row)} outputs, and the model of `source` has {len(self.labels)}")
            rows.append(row)
        scores = np.array(rows, dtype=np.float64)
        if not np.isfinite(scores).all():
            raise NotReady("it gives NaN or an infinity for a golden conversation")
        if len(scores) > 1 and (scores == scores[0]).all():
            raise NotReady(f"all {len(scores)} golden conversations score {scores[0].tolist()}")
        return scores

    async def _call(self, call: Call, timeout_s: float) -> Sequence[Row]:
        path = call.way.path
        body, headers = await self.link.post(path, self.protocol.body(call) | dict(call.way.raw), timeout_s)
        try:
            answer = self.protocol.parse(Reply(call.identity, self.labels, body, headers))
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise Unavailable(f"{path} answered in a form that is not its protocol's: {error!r}") from error
        return self._checked(answer, call.items)

    def _checked(self, answer: Answer, items: Sequence[Outgoing]) -> Sequence[Row]:
        sent = sum(item.tokens for item in items)
        if len(answer.rows) != len(items):
            raise Unavailable(f"it answered {len(answer.rows)} of {len(items)} conversations")
        if answer.tokens != sent and not any(isinstance(row, ServiceError) for row in answer.rows):
            raise Miscounted(f"it counted {answer.tokens} tokens where {sent} were sent")
        return answer.rows


def _probabilities(scores: Scores) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _softmax(raw: Scores) -> Scores:
    powers: Scores = np.exp(raw - raw.max(axis=1, keepdims=True))
    shares: Scores = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _named(way: Way) -> str:
    fields = ", ".join(f"{key}={value}" for key, value in way.raw.items())
    return f"{way.path} with {fields}" if fields else way.path
