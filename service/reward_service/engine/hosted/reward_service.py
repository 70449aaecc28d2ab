"""Another reward-service: the raw scores of an objective whose terms are the outputs of this model."""

from collections.abc import Mapping, Sequence
from typing import Any

from reward_service.engine.hosted.protocol import Answer, Asking, Call, HostedProtocol, Identity, Reply, Row, Way
from reward_service.errors import EngineFailed, InvalidRequest, NotReady
from reward_service.problems import nearest


class RewardServiceProtocol(HostedProtocol):
    """Text in, rendered here and not there, so that both mean the same tokens; it pools as Transformers does."""

    sends_text = True
    pools_last = False
    health = "/ready"
    ways = (Way("/v1/score", sure=True),)

    async def identify(self, server: Asking, served_name: str | None) -> Identity:
        """The model of that name, or the only one, and an objective of nothing but its outputs."""
        cards = {str(card["name"]): card for card in (await server.get("/v1/models"))["models"]}
        if served_name is None and len(cards) != 1:
            raise NotReady(f"it serves {len(cards)} models; name one in served_name; valid: {', '.join(sorted(cards))}")
        name = served_name if served_name is not None else next(iter(cards))
        if name not in cards:
            raise NotReady(f"it serves no model {name!r}{nearest(name, cards)}")
        card = cards[name]
        objectives = (await server.get("/v1/objectives"))["objectives"]
        fit = [str(one["name"]) for one in objectives if _covers(one["recipe"]["terms"], name, card["labels"])]
        if not fit:
            raise NotReady(
                f"none of its objectives gives the outputs of {name!r} alone; add one with a term of that model for"
                " each label, transform 'identity' and no baseline"
            )
        return Identity(
            name,
            revision=str(card["fingerprint"]),
            max_tokens=int(card["max_tokens"]),
            labels=tuple(card["labels"]),
            objective=fit[0],
        )

    def body(self, call: Call) -> dict[str, Any]:
        """Rendered texts; scores are cached on this side."""
        conversations = [{"text": item.text} for item in call.items]
        return {"objective": call.identity.objective, "conversations": conversations, "cache": False}

    def parse(self, reply: Reply) -> Answer:
        """The raw score of each label's term."""
        rows = [_row(score, reply.identity.labels or ()) for score in reply.body["scores"]]
        return Answer(rows, int(reply.body["usage"]["tokens"]))


def _covers(terms: Sequence[Mapping[str, Any]], model: str, labels: Sequence[str]) -> bool:
    alone = all(term["model"] == model and term["baseline"] is None for term in terms)
    return alone and {_index(term["label"], labels) for term in terms} == set(range(len(labels)))


def _index(label: int | str, labels: Sequence[str]) -> int:
    return label if isinstance(label, int) else labels.index(label)


def _row(score: Mapping[str, Any], labels: Sequence[str]) -> Row:
    raw = {_index(term["label"], labels): term["raw"] for term in score["terms"]}
    if len(raw) == len(labels) and all(value is not None for value in raw.values()):
        return [float(raw[index]) for index in range(len(labels))]
    error = score["error"] or next(term["error"] for term in score["terms"] if term["error"])
    kind = InvalidRequest if int(error["status"]) < 500 else EngineFailed
    return kind(f"the server says {error['code']}: {error['detail']}")
