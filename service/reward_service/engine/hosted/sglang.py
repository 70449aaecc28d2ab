"""SGLang's server: its own `/classify`, never `/v1/classify`, which normalises over the batch."""

from typing import Any

from reward_service.engine.hosted.protocol import Answer, Asking, Call, HostedProtocol, Identity, Reply, Way
from reward_service.errors import NotReady


class SglangProtocol(HostedProtocol):
    """Token ids in. A priority is refused by servers that do not schedule by it, so none is sent."""

    ways = (Way("/classify"),)

    async def identify(self, server: Asking, served_name: str | None) -> Identity:
        """The only model; NotReady when it generates text."""
        info = await server.get("/get_model_info")
        if info.get("is_generation"):
            raise NotReady("it serves a model that generates text; start it with --is-embedding")
        name = str(info["model_path"])
        if served_name is not None and served_name != name:
            raise NotReady(f"it serves {name!r} and not {served_name!r}")
        return Identity(name, revision=info.get("weight_version"))

    def body(self, call: Call) -> dict[str, Any]:
        """A batch of token ids."""
        body: dict[str, Any] = {"input_ids": [item.ids for item in call.items]}
        return body if call.salt is None else body | {"extra_key": [call.salt] * len(call.items)}

    def parse(self, reply: Reply) -> Answer:
        """`embedding` is what the head gave."""
        entries = [reply.body] if isinstance(reply.body, dict) else reply.body
        rows = [list(entry["embedding"]) for entry in entries]
        return Answer(rows, sum(int(entry["meta_info"]["prompt_tokens"]) for entry in entries))
