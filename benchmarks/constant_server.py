"""The service with engines that compute nothing: what is left is HTTP, statistics and JSON.

python -m benchmarks.constant_server [service | floor] PORT STORE_URL

`service` is the real application over two models that give every conversation the score 0.5, with 64 stored references
for each of the prompts of `conversations`. `floor` is an empty FastAPI route that validates the same body.
"""

import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI

from reward_service.baselines import Entry, prompt_key
from reward_service.catalog import Catalog, Model
from reward_service.cli.serving import announce, bind, listen, run
from reward_service.config import Config, parse_config
from reward_service.demo import conversations as demo_conversations
from reward_service.engine.engine import EngineCard, Estimate, Fingerprint, Item, ItemError
from reward_service.schemas import ScoreRequest
from reward_service.service import Service, assemble
from reward_service.stores import open_store
from reward_service.telemetry import Metrics, configure_logs

MODELS = ("helpful", "harmless")
POLICY = "sft"
SCORE = 0.5
PROMPTS, RESPONSES, REFERENCES = 32, 8, 64
PROMPT_WORDS, RESPONSE_WORDS = 150, 175
"""About 200 and 230 tokens of English."""


class ConstantEngine:
    """Gives every item the same score at once."""

    def __init__(self, name: str) -> None:
        self.card = EngineCard(
            engine="constant",
            labels=("LABEL_0",),
            fingerprint=Fingerprint(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", "weights"),
            dtype="float32",
            device="cpu",
            max_tokens=4096,
        )
        self.failure: str | None = None
        self.work_s = 0.0
        self._estimate = Estimate(np.array([SCORE]), tokens=430, tokens_computed=430, response_tokens=230)

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to finish."""

    async def score(self, items: Sequence[Item], **_how: Any) -> list[Estimate | ItemError]:
        """The one estimate for every item."""
        return [self._estimate] * len(items)


def conversations(chance: random.Random) -> list[dict[str, Any]]:
    """One request's conversations: the same 32 prompts each time, 8 new responses to each."""
    return [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]}
        for prompt in prompts()
        for response in texts(chance, RESPONSES, RESPONSE_WORDS)
    ]


def prompts() -> list[str]:
    return list(texts(random.Random(0), PROMPTS, PROMPT_WORDS))


def texts(chance: random.Random, count: int, words: int) -> Iterator[str]:
    """Texts of about `words` words, made of whole sentences of the bundled conversations."""
    sentences = [f"{part}." for one in demo_conversations() for part in one.response.rstrip(".").split(". ")]
    for _ in range(count):
        text, length = "", 0
        while length < words:
            sentence = chance.choice(sentences)
            text += sentence + chance.choice((" ", " ", " ", "\n\n"))
            length += len(sentence.split())
        yield text.strip()


def config(port: int, store: str) -> Config:
    """Two log-sigmoid-centered terms on stored references, joined by AND."""
    terms = [
        {"model": name, "transform": "log_sigmoid_centered", "baseline": {"policy": POLICY, "min_references": 8}}
        for name in MODELS
    ]
    return parse_config(
        {
            "server": {"port": port},
            "store": {"url": store},
            "models": [{"name": name, "source": f"constant/{name}"} for name in MODELS],
            "objectives": [{"name": "both", "aggregate": "and", "terms": terms}],
        },
        {},
    )


async def serve(config: Config) -> None:
    """Serve as `reward-service serve` does in a container, but for the engines."""
    configure_logs("json", config.telemetry.log_level)
    models = {model.name: Model(model, ConstantEngine(model.name)) for model in config.models}
    catalog = Catalog(models, lambda model: ConstantEngine(model.name))
    store = open_store(config.store.url)
    with bind(config.server.host, config.server.port) as bound:
        service = assemble(config, catalog, store, Metrics())
        await store_references(service)
        await listen(service, bound, announce)
    await store.close()


async def store_references(service: Service) -> None:
    """64 rewards of each prompt by each model."""
    chance = np.random.default_rng(0)
    for model in service.catalog:
        entries = [Entry(prompt_key(prompt), rewards=chance.normal(size=REFERENCES)) for prompt in prompts()]
        await service.baselines.put(
            fingerprint=model.fingerprint, policy=POLICY, policy_revision=None, entries=entries, labels=1
        )


def floor_app() -> FastAPI:
    """The same body, validated by FastAPI, and nothing done with it."""
    app = FastAPI()

    @app.post("/v1/score")
    async def score(body: ScoreRequest) -> dict[str, int]:
        return {"conversations": len(body.conversations)}

    return app


def main() -> None:
    kind, port, store = sys.argv[1:]
    if kind == "floor":
        uvicorn.run(floor_app(), port=int(port), log_level="warning")
    else:
        run(serve(config(int(port), store)))


if __name__ == "__main__":
    main()
