"""vLLM's server: `/classify`, or `/pooling` where `/classify` takes no token ids yet."""

from typing import Any

from reward_service.engine.hosted.protocol import Answer, Asking, Call, HostedProtocol, Identity, Reply, Way
from reward_service.errors import NotReady
from reward_service.problems import nearest

SWITCHES = ("use_activation", "activation", "softmax")
"""What versions called the field that turns the sigmoid or softmax off, the newest first."""
TASK = {"task": "classify"}


class VllmProtocol(HostedProtocol):
    """Token ids in; priorities are passed, and count where the server schedules by them."""

    ways = (
        *(Way("/classify", {switch: False}, {switch: True}) for switch in SWITCHES),
        *(Way("/pooling", TASK | {switch: False}, TASK | {switch: True}) for switch in SWITCHES),
    )

    async def identify(self, server: Asking, served_name: str | None) -> Identity:
        """The model of that name, or the only one."""
        cards = {str(card["id"]): card for card in (await server.get("/v1/models"))["data"]}
        name = served_name if served_name is not None else next(iter(cards), "")
        if name not in cards:
            raise NotReady(f"it serves no model {name!r}{nearest(name, cards)}")
        limit = cards[name].get("max_model_len")
        return Identity(name, max_tokens=None if limit is None else int(limit))

    def body(self, call: Call) -> dict[str, Any]:
        """A batch of token ids."""
        body = {
            "model": call.identity.served,
            "input": [item.ids for item in call.items],
            "priority": int(call.priority),
        }
        return body if call.salt is None else body | {"cache_salt": call.salt}

    def parse(self, reply: Reply) -> Answer:
        """`probs` of `/classify`, `data` of `/pooling`."""
        entries = sorted(reply.body["data"], key=lambda entry: int(entry["index"]))
        rows = [list(entry["probs"] if "probs" in entry else entry["data"]) for entry in entries]
        return Answer(rows, int(reply.body["usage"]["prompt_tokens"]))
