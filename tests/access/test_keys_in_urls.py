"""A trainer that takes nothing but a URL has its key in that URL: HTTP libraries send it as Basic authorization."""

import base64

import httpx
import pytest

from reward_service.api.app import routed_app
from tests.access.configs import KEYS, MODEL, key_table, with_keys
from tests.access.serving import GOOD, served
from tests.conftest import Start

BODY = {"conversations": [GOOD]}


def basic(credentials: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def test_requests_and_httpx_send_the_key_of_a_url() -> None:
    requests = pytest.importorskip("requests")
    with served(with_keys()) as service:
        for user in ("any", "x-y", ""):
            url = f"http://{user}:{KEYS['score']}@127.0.0.1:{service.port}/v1/score"
            assert requests.post(url, json=BODY, timeout=10).json()["scores"][0]["reward"] == 1.5
            assert httpx.post(url, json=BODY).json()["scores"][0]["reward"] == 1.5


def test_a_key_with_signs_that_a_url_escapes_is_the_same_key() -> None:
    with served(MODEL + key_table("trainer", "rs_a/b:c@d é", ["score"])) as service:
        url = f"http://any:rs_a%2Fb%3Ac%40d%20%C3%A9@127.0.0.1:{service.port}/v1/score"
        assert httpx.post(url, json=BODY).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        basic("any:rs_wrong"),
        basic(f"{KEYS['score']}:"),
        basic(KEYS["score"]),
        basic(""),
        {"authorization": f"Basic {KEYS['score']}"},
        {"authorization": "Basic"},
        {"authorization": "Basic =="},
        {"authorization": f"Digest {KEYS['score']}"},
    ],
    ids=["wrong", "as user", "no colon", "empty", "not encoded", "nothing", "no base64", "another scheme"],
)
async def test_what_is_no_key_is_refused(headers: dict[str, str], start: Start) -> None:
    async with start(with_keys()) as running:
        refused = await running.http.post("/v1/score", json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "rs_" not in refused.text


async def test_a_key_in_the_url_opens_no_more_than_its_scopes(start: Start) -> None:
    async with start(with_keys()) as running:
        refused = await running.http.post("/v1/score", json=BODY, headers=basic(f"any:{KEYS['admin']}"))
    assert refused.status_code == 403


def test_the_document_names_both_ways_for_each_guarded_operation() -> None:
    document = routed_app().openapi()
    schemes = document["components"]["securitySchemes"]
    assert {name: one["scheme"] for name, one in schemes.items()} == {"api_key": "bearer", "api_key_in_url": "basic"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ways = {name: scopes for one in operation["security"] for name, scopes in one.items()}
            assert path == "/health" or (ways["api_key"] and ways["api_key"] == ways["api_key_in_url"]), path


async def test_aiohttp_sends_the_key_of_a_url() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    with served(with_keys()) as service:
        url = f"http://any:{KEYS['score']}@127.0.0.1:{service.port}/v1/score"
        async with aiohttp.ClientSession() as session, session.post(url, json=BODY) as answer:
            assert answer.status == 200
