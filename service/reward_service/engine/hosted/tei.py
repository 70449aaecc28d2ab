"""Text Embeddings Inference: `/predict`, which takes text and sorts the labels by their score."""

from typing import Any

from reward_service.engine.hosted.protocol import Answer, Asking, Call, HostedProtocol, Identity, Reply, Way
from reward_service.errors import NotReady


class TeiProtocol(HostedProtocol):
    """Text in; it takes no token ids, and truncates nothing."""

    sends_text = True
    adds_special_tokens = True
    pools_last = False
    ways = (Way("/predict", {"raw_scores": True}, {"raw_scores": False}),)

    async def identify(self, server: Asking, served_name: str | None) -> Identity:
        """The only model; NotReady when it is no classifier."""
        info = await server.get("/info")
        name = str(info["model_id"])
        if served_name is not None and served_name != name:
            raise NotReady(f"it serves {name!r} and not {served_name!r}")
        kind = info["model_type"]
        if not isinstance(kind, dict) or not {"classifier", "reranker"} & kind.keys():
            raise NotReady(f"it serves {name!r} as {kind!r} and not as a classifier")
        return Identity(
            name,
            revision=info.get("model_sha"),
            max_tokens=int(info["max_input_length"]),
            max_items=int(info["max_client_batch_size"]),
        )

    def body(self, call: Call) -> dict[str, Any]:
        """A batch of texts."""
        return {"inputs": [[item.text] for item in call.items], "truncate": False}

    def parse(self, reply: Reply) -> Answer:
        """A label and its score for each label of each item."""
        rows = [{str(one["label"]): float(one["score"]) for one in entry} for entry in reply.body]
        if len(reply.labels) == 1 and all(len(row) == 1 for row in rows):
            return Answer([list(row.values()) for row in rows], int(reply.headers["x-compute-tokens"]))
        return Answer([[row[label] for label in reply.labels] for row in rows], int(reply.headers["x-compute-tokens"]))
