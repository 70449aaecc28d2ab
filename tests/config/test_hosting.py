"""A model that is computed elsewhere says where, and one that is computed here does not."""

import tomllib
from typing import Any

import pytest

from reward_service.config import parse_config
from reward_service.errors import ConfigError

HOSTED: dict[str, Any] = {
    "name": "m",
    "source": "org/m",
    "engine": "http",
    "protocol": "vllm",
    "urls": ["http://127.0.0.1:8001"],
}


def problems(**changes: Any) -> list[str]:
    table = {key: value for key, value in (HOSTED | changes).items() if value is not None}
    try:
        parse_config({"models": [table]}, {})
    except ConfigError as error:
        return error.problems
    return []


@pytest.mark.parametrize("url", ["http://host:8001", "https://host", "http://[::1]:8001/", "http://10.0.0.1:80"])
def test_servers_are_named_by_host_and_port(url: str) -> None:
    assert problems(urls=[url]) == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("host:8001", "does not begin with http:// or https://"),
        ("ftp://host", "does not begin with http:// or https://"),
        ("http://", "names no host"),
        ("http://host:99999", "is no URL: Port out of range 0-65535"),
        ("http://host/classify", "names more than a server; the protocol chooses the path"),
        ("http://host/v1", "names more than a server; the protocol chooses the path"),
        ("http://host?key=1", "names more than a server; the protocol chooses the path"),
        ("http://user:secret@host", "holds a password; put the key into an environment variable"),
    ],
)
def test_a_url_that_is_no_server_is_named(url: str, told: str) -> None:
    (problem,) = problems(urls=["http://good", url])
    assert problem.startswith(f"models[0].urls[1]: {url!r} {told}")


def test_a_server_stands_there_once() -> None:
    (problem,) = problems(urls=["http://host:1", "http://host:1/"])
    assert problem == "models[0].urls: 'http://host:1' stands there 2 times; name each server once"


def test_engine_http_needs_protocol_and_urls() -> None:
    told = problems(protocol=None, urls=None)
    assert [problem.split(":")[0] for problem in told] == ["models[0].protocol", "models[0].urls"]


@pytest.mark.parametrize("engine", ["torch", "vllm", None])
def test_other_engines_have_no_servers(engine: str | None) -> None:
    told = problems(engine=engine, served_name="x", api_key_env="KEY")
    assert [problem.split(":")[0] for problem in told] == [
        "models[0].protocol",
        "models[0].urls",
        "models[0].served_name",
        "models[0].api_key_env",
    ]
    assert all("computes in this process" in problem for problem in told)


def test_values_of_another_type_are_told_once() -> None:
    assert [problem.split(":")[0] for problem in problems(urls=[7])] == ["models[0].urls[0]"]
    assert [problem.split(":")[0] for problem in problems(urls="http://host")] == ["models[0].urls"]


def test_a_file_with_a_hosted_model_is_valid() -> None:
    text = (
        '[[models]]\nname = "m"\nsource = "org/m"\nengine = "http"\nprotocol = "tei"\nurls = ["http://a", "http://b"]'
    )
    assert parse_config(tomllib.loads(text), {}).models[0].urls == ["http://a", "http://b"]
