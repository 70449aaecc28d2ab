"""Replicas as plain functions, and both clients behind one door: what holds for one must hold for the other."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import pytest

from reward_service.client import AsyncClient, Client
from tests.hosted.serving import listening

Body = dict[str, Any]
Handler = Callable[[httpx.Request], httpx.Response]
Kind = Literal["sync", "async"]
KINDS: tuple[Kind, ...] = ("sync", "async")
both = pytest.mark.parametrize("kind", KINDS)
Urls = str | list[str]
A, B = "http://a:8000", "http://b:8000"
LATER = {"retry-after": "900"}
"""Headers of an answer that ends a call at once, however slow the machine: to come again after any deadline."""


@dataclass(frozen=True)
class Asked:
    """A method of a client and its arguments."""

    method: str
    arguments: tuple[Any, ...]
    options: Body

    def of(self, client: Client | AsyncClient) -> Any:
        """What the client returns, which an AsyncClient's caller awaits."""
        return getattr(client, self.method)(*self.arguments, **self.options)


def scoring(*arguments: Any, **options: Any) -> Asked:
    """A call of `score`."""
    return Asked("score", arguments, options)


def ask(kind: Kind, handler: Handler, method: str, *arguments: Any, urls: Urls = A, **options: Any) -> Any:
    """What a method of one of the clients returns, with `handler` in the place of the network."""
    return ask_all(kind, handler, [Asked(method, arguments, {})], urls=urls, **options)[0]


def ask_all(kind: Kind, handler: Handler, asked: Iterable[Asked], *, urls: Urls = A, **options: Any) -> list[Any]:
    """As `ask`, for several calls of one client, one after the other."""
    transport = httpx.MockTransport(handler)
    if kind == "sync":
        with Client(urls, transport=transport, **options) as client:
            return [one.of(client) for one in asked]

    async def run() -> list[Any]:
        async with AsyncClient(urls, transport=transport, **options) as client:
            return [await one.of(client) for one in asked]

    return asyncio.run(run())


@contextmanager
def served(handler: Handler) -> Iterator[str]:
    """The handler behind a real socket; its URL."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        asked = httpx.Request(scope["method"], f"http://test{scope['path']}", headers=scope["headers"], content=body)
        answer = await asyncio.to_thread(handler, asked)
        headers = [(name, value) for name, value in answer.headers.raw]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})

    with listening(app) as url:
        yield url


def problem(status: int, code: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """An error as the service writes it."""
    body = {"type": "urn:x", "title": code, "status": status, "detail": f"the {code} of it", "code": code}
    return httpx.Response(status, json={**body, "request_id": "r"}, headers=headers)


def item_error(status: int, code: str) -> Body:
    """An error of one conversation."""
    return {"code": code, "title": code, "status": status, "detail": f"the {code} of it"}


@dataclass
class Replica:
    """Answers as a service does: the reward of a conversation is the number in its response.

    `script` holds what is answered instead, request by request; `items` what a conversation with this id fails with,
    time by time. `bodies` are the score requests.
    """

    script: list[httpx.Response | Exception] = field(default_factory=list)
    items: dict[str, list[Body]] = field(default_factory=dict)
    most: int = 4096
    fingerprint: str = "sha256:f"
    objective_hash: str = "sha256:o"
    policies: dict[str, Body] = field(default_factory=dict)
    bodies: list[Body] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request."""
        self.requests.append(request)
        if request.url.path != "/v1/score":
            return httpx.Response(200, json={"status": "ok", "models": []})
        if self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, Exception):
                raise scripted
            return scripted
        body = json.loads(request.content)
        self.bodies.append(body)
        asked = body["conversations"]
        if len(asked) > self.most:
            return problem(413, "too_large")
        return httpx.Response(200, json=self.answer(body))

    def answer(self, body: Body) -> Body:
        """The answer to a valid score request."""
        return {
            "objective": body.get("objective") or "default",
            "objective_hash": self.objective_hash,
            "recipe": {"aggregate": "and", "k": None, "terms": []},
            "scores": [self._score(conversation) for conversation in body["conversations"]],
            "models": {"m": self._model()},
            "baselines": self.policies,
            "usage": {"tokens": 10 * len(body["conversations"]), "tokens_computed": 5, "cached_scores": 1},
            "timings_ms": {"queue": 1.0, "compute": float(len(body["conversations"])), "total": 9.0},
        }

    def _model(self) -> Body:
        return {"fingerprint": self.fingerprint, "fingerprint_kind": "weights", "engine": "torch", "dtype": "float32"}

    def _score(self, conversation: Body) -> Body:
        identity = conversation.get("id")
        errors = self.items.get(identity or "")
        error = errors.pop(0) if errors else None
        reward = None if error else float(conversation["response"])
        return {"id": identity, "reward": reward, "terms": [], "error": error}


def replicas(**handlers: Handler) -> Handler:
    """Several replicas by the host of their URL."""
    return lambda request: handlers[request.url.host](request)


def conversation(number: float, **more: Any) -> Body:
    """A conversation whose reward is the number."""
    return {"prompt": "p", "response": str(number), **more}
