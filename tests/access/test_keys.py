"""Where keys are configured, every route but /health asks for one whose scopes open it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from reward_service.api.app import ROUTERS, ROUTES, create_app, in_process_app, routed_app
from reward_service.api.security import Guard
from reward_service.api.tracing import Tracing
from reward_service.config import ApiKeyConfig
from tests.access.configs import KEYS, MODEL, digest, key_table, with_keys
from tests.access.serving import GOOD
from tests.conftest import Start

OPEN = ("GET", "/health")
HIDDEN = [("GET", "/docs", "score"), ("GET", "/openapi.json", "score")]


def documented() -> Iterator[tuple[str, str, str | None]]:
    """Each operation of the OpenAPI document with the scope that it names."""
    for path, operations in routed_app().openapi()["paths"].items():
        for method, operation in operations.items():
            scopes = [scope for one in operation["security"] for scope in one.get("api_key", ())]
            yield method.upper(), path, scopes[0] if scopes else None


OPERATIONS = [*documented(), *HIDDEN]
GUARDED = [operation for operation in OPERATIONS if operation[:2] != OPEN]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def in_place(path: str) -> str:
    return path.replace("{name}", "m")


def test_the_walk_sees_every_route_of_the_application() -> None:
    declared = {
        (method, route.path)
        for r in ROUTERS
        for route in r.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert {operation[:2] for operation in OPERATIONS} == declared
    assert routed_app().routes == ROUTES, "a route outside the routers is not seen by the guard"
    assert len(declared) >= 15


def test_only_health_is_open() -> None:
    assert [operation[:2] for operation in OPERATIONS if operation[2] is None] == [OPEN]


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED, ids=lambda part: str(part))
async def test_a_guarded_route_refuses_no_key_a_wrong_key_and_keys_of_other_scopes(
    method: str, path: str, scope: str, start: Start
) -> None:
    async with start(with_keys()) as running:

        async def ask(headers: dict[str, str]) -> httpx.Response:
            return await running.http.request(method, in_place(path), headers=headers)

        for headers in (
            {},
            bearer("rs_wrong"),
            bearer(""),
            {"authorization": KEYS[scope]},
            bearer(digest(KEYS[scope])),
        ):
            refused = await ask(headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized"), headers
            assert refused.headers["www-authenticate"] == "Bearer"
        for other in KEYS.keys() - {scope}:
            refused = await ask(bearer(KEYS[other]))
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), other
            assert scope in refused.json()["detail"]
        assert (await ask(bearer(KEYS[scope]))).status_code not in (401, 403)
    assert running.engines["m"].calls == []


async def test_health_needs_no_key(start: Start) -> None:
    async with start(with_keys()) as running:
        assert (await running.http.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/scores", "/v1/score/", "//v1/score", "/docs/oauth2-redirect", "/HEALTH", "/health/"]
)
async def test_a_path_that_is_none_tells_nothing_without_a_key(path: str, start: Start) -> None:
    async with start(with_keys()) as running:
        assert (await running.http.get(path)).status_code == 401
        found = await running.http.get(path, headers=bearer(KEYS["score"]))
    assert (found.status_code, found.json()["code"]) == (404, "not_found")


async def test_a_wrong_method_needs_the_key_of_the_path(start: Start) -> None:
    async with start(with_keys()) as running:
        assert (await running.http.get("/v1/score", headers=bearer(KEYS["admin"]))).status_code == 403
        unserved = await running.http.get("/v1/score", headers=bearer(KEYS["score"]))
    assert (unserved.status_code, unserved.headers["allow"]) == (405, "POST")


async def test_a_key_scores_and_may_have_several_scopes(start: Start) -> None:
    toml = MODEL + key_table("trainer", "rs_both", ["score", "baselines"])
    entries = [{"prompt": "p", "rewards": [1.0]}]
    async with start(toml) as running:
        running.http.headers.update({"authorization": "bearer   rs_both "})
        scored = await running.http.post("/v1/score", json={"conversations": [GOOD]})
        put = await running.http.put("/v1/baselines", json={"model": "m", "policy": "sft", "entries": entries})
        assert (await running.http.get("/metrics")).status_code == 403
    assert (scored.json()["scores"][0]["reward"], put.status_code) == (1.5, 200)


async def test_two_keys_at_once_are_refused(start: Start) -> None:
    async with start(with_keys()) as running:
        headers = [("authorization", f"Bearer {KEYS['score']}"), ("authorization", "Bearer x")]
        assert (await running.http.get("/v1/models", headers=headers)).status_code == 401


async def test_without_keys_every_route_is_open(start: Start) -> None:
    async with start(MODEL) as running:
        for method, path, _ in OPERATIONS:
            assert (await running.http.request(method, in_place(path))).status_code not in (401, 403)


async def test_callers_in_the_same_process_need_no_key(start: Start) -> None:
    async with start(with_keys()) as running:
        transport = httpx.ASGITransport(in_process_app(running.service))
        async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as http:
            assert (await http.get("/v1/models")).status_code == 200


async def test_a_route_that_declares_no_scope_is_closed_to_every_key(start: Start) -> None:
    async def forgotten() -> str:
        raise AssertionError("served")

    every = [ApiKeyConfig(name="all", sha256=digest("rs_all"), scopes=["score", "baselines", "metrics", "admin"])]
    async with start(MODEL) as running:
        app = FastAPI()
        app.state.service = running.service
        app.add_middleware(Guard, keys=every, routes=[APIRoute("/forgotten", forgotten)])
        app.add_middleware(Tracing)
        app.add_api_route("/forgotten", forgotten)
        app.add_api_route("/unknown-to-the-guard", forgotten)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            declared_nothing = await http.get("/forgotten", headers=bearer("rs_all"))
            unknown = await http.get("/unknown-to-the-guard", headers=bearer("rs_all"))
    assert (declared_nothing.status_code, unknown.status_code) == (403, 404)
    assert "none opens it" in declared_nothing.json()["detail"]


async def test_a_refused_request_is_not_read(start: Start) -> None:
    sent: list[Any] = []
    reads: list[bool] = []

    async def receive() -> dict[str, Any]:
        reads.append(bool(sent))
        return {"type": "http.request", "body": b"x" * 1024, "more_body": len(reads) < 100}

    async def send(message: Any) -> None:
        sent.append(message)

    async with start(with_keys()) as running:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"",
            "headers": [(b"content-length", b"10240000")], "root_path": "", "scheme": "http", "server": ("test", 80),
            "client": ("test", 1), "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        app: Any = create_app(running.service)
        await app(scope, receive, send)
    assert sent[0]["status"] == 401
    assert reads == [True] * 100, "read before the answer, or not to the end"


async def test_logs_and_metrics_can_name_the_key_and_never_show_it(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(with_keys()) as running:
        with caplog.at_level(0):
            for key in (KEYS["admin"], "rs_wrong-key"):
                refused = await running.http.post("/v1/score", json={}, headers=bearer(key))
                assert key not in refused.text
        metrics = (await running.http.get("/metrics", headers=bearer(KEYS["metrics"]))).text
    assert 'reward_service_errors_total{code="forbidden"} 1.0' in metrics
    assert 'reward_service_errors_total{code="unauthorized"} 1.0' in metrics
    assert "rs_" not in caplog.text
