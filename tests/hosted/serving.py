"""HTTP servers in the manner of vLLM, SGLang and TEI: small apps that compute real scores of a model folder."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.ports import HeldPort

Body = dict[str, Any]


@dataclass
class Host:
    """A model on a server, and how the server behaves; `calls` are the bodies that it was sent.

    `gone` counts the calls whose caller went away, `unwell` how often it said that it is not healthy.
    `switches` are the names under which it knows the field that turns the sigmoid off; without any it is always on.
    `room` is how many items a call may have before it answers 503, `limit` how many tokens an item may have.
    """

    folder: Path
    switches: tuple[str, ...] = ("use_activation",)
    takes_ids: bool = True
    room: int | None = None
    limit: int = 100_000
    tells_limit: bool = True
    adds_bos: bool = False
    normalises: bool = False
    offset: float = 0.0
    delay_s: float = 0.0
    healthy: bool = True
    breaks: bool = False
    key: str | None = None
    name: str = "org/reward"
    calls: list[Body] = field(default_factory=list)
    gone: int = 0
    unwell: int = 0

    def __post_init__(self) -> None:
        auto: Any = AutoModelForSequenceClassification
        self.model = auto.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)

    def last_token_scores(self, ids: list[int]) -> list[float]:
        """As vLLM and SGLang: the literal last token is pooled."""
        with torch.inference_mode():
            body = getattr(self.model, self.model.base_model_prefix)
            hidden = body(input_ids=torch.tensor([ids])).last_hidden_state
            row: list[float] = (self.model.score(hidden[0, -1]) + self.offset).tolist()
        return [1.0] * len(row) if self.normalises else row

    def own_scores(self, ids: list[int]) -> list[float]:
        """As the model itself pools."""
        with torch.inference_mode():
            row: list[float] = self.model(input_ids=torch.tensor([ids])).logits[0].tolist()
        return row

    def counted(self, ids: list[int]) -> list[int]:
        return [*ids[:1], *ids] if self.adds_bos else ids

    async def admit(self, request: Request, items: list[Any], body: Body) -> None:
        """What a server does before it computes."""
        self.calls.append(body)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            raise HTTPException(401, "Unauthorized")
        if self.breaks:
            raise HTTPException(500, "out of memory")
        if self.room is not None and len(items) > self.room:
            raise HTTPException(503, "The engine is currently busy")
        for _ in range(round(self.delay_s / 0.02)):
            await asyncio.sleep(0.02)
            if await request.is_disconnected():
                self.gone += 1
                raise HTTPException(499, "gone")

    def check(self, ids: list[int]) -> None:
        if len(ids) > self.limit:
            raise HTTPException(400, {"message": f"the prompt has {len(ids)} tokens, the model reads {self.limit}"})


def _app(host: Host) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    async def health() -> Response:
        host.unwell += not host.healthy
        return Response(status_code=200 if host.healthy else 500)

    return app


def vllm_app(host: Host) -> FastAPI:
    """`/classify` and `/pooling`; unknown fields are ignored, as there."""
    app = _app(host)

    def activated(body: Body, row: list[float]) -> list[float]:
        raw = any(body.get(switch) is False for switch in host.switches)
        values = torch.tensor(row)
        if raw:
            return row
        found: list[float] = (torch.sigmoid(values) if len(row) == 1 else torch.softmax(values, -1)).tolist()
        return found

    @app.get("/v1/models")
    async def models() -> Body:
        card: Body = {"id": host.name, "object": "model"}
        return {"data": [card | ({"max_model_len": host.limit} if host.tells_limit else {})]}

    async def scored(request: Request, key: str) -> Body:
        body = await request.json()
        if body["model"] != host.name:
            raise HTTPException(404, {"message": f"The model `{body['model']}` does not exist."})
        await host.admit(request, body["input"], body)
        sent = [host.counted(ids) for ids in body["input"]]
        for ids in sent:
            host.check(ids)
        data = [{"index": i, key: activated(body, host.last_token_scores(ids))} for i, ids in enumerate(sent)]
        return {"data": data[::-1], "usage": {"prompt_tokens": sum(map(len, sent))}}

    @app.post("/classify")
    async def classify(request: Request) -> Any:
        if not host.takes_ids:
            return JSONResponse({"error": {"message": "input: Input should be a valid string"}}, 400)
        return await scored(request, "probs")

    @app.post("/pooling")
    async def pooling(request: Request) -> Body:
        return await scored(request, "data")

    return app


def sglang_app(host: Host) -> FastAPI:
    """The native `/classify`; one item that is refused fails the call."""
    app = _app(host)

    @app.get("/get_model_info")
    async def info() -> Body:
        return {"model_path": host.name, "is_generation": False}

    @app.post("/classify")
    async def classify(request: Request) -> list[Body]:
        body = await request.json()
        await host.admit(request, body["input_ids"], body)
        sent = [host.counted(ids) for ids in body["input_ids"]]
        for ids in sent:
            host.check(ids)
        return [
            {"embedding": host.last_token_scores(ids), "meta_info": {"id": "x", "prompt_tokens": len(ids)}}
            for ids in sent
        ]

    return app


def tei_app(host: Host) -> FastAPI:
    """`/predict`: text in, labels sorted by score."""
    app = _app(host)

    @app.get("/info")
    async def info() -> Body:
        kind: Body = {"classifier": {"id2label": {}, "label2id": {}}}
        return {
            "model_id": host.name,
            "model_sha": "a1b2",
            "model_type": kind,
            "max_input_length": host.limit,
            "max_client_batch_size": 3,
        }

    @app.post("/predict")
    async def predict(request: Request, response: Response) -> list[list[Body]]:
        body = await request.json()
        assert body["truncate"] is False
        await host.admit(request, body["inputs"], body)
        sent = [host.counted(host.tokenizer(text)["input_ids"]) for (text,) in body["inputs"]]
        response.headers["x-compute-tokens"] = str(sum(map(len, sent)))
        return [labelled(host.own_scores(ids), raw=body["raw_scores"]) for ids in sent]

    def labelled(row: list[float], *, raw: bool) -> list[Body]:
        scores = row if raw else torch.softmax(torch.tensor(row), -1).tolist() if len(row) > 1 else None
        scores = torch.sigmoid(torch.tensor(row)).tolist() if scores is None else scores
        named = [{"score": score, "label": host.model.config.id2label[i]} for i, score in enumerate(scores)]
        return sorted(named, key=lambda one: -float(one["score"]))

    return app


@contextmanager
def listening(app: Any, port: int = 0) -> Iterator[str]:
    """Serves an app from a thread of its own; the URL."""
    settings = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    held = HeldPort(port)
    url = f"http://127.0.0.1:{held.number}"
    thread = threading.Thread(target=server.run, args=([held.socket],))
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise AssertionError("the server does not start")
            threading.Event().wait(0.01)
        yield url
    finally:
        server.should_exit = True
        thread.join(30)
        held.close()
