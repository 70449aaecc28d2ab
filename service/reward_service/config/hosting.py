"""What a model's table must agree on to be computed elsewhere: engine, protocol and URLs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

HOSTING = ("protocol", "urls", "served_name", "api_key_env")


def hosting_problems(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Every disagreement in one `[[models]]` table."""
    if table.get("engine", "torch") == "http":
        yield from _missing(path, table)
        urls = table.get("urls")
        given = urls if isinstance(urls, list) else []
        yield from _url_problems(f"{path}.urls", [url for url in given if isinstance(url, str)])
        return
    for key in HOSTING:
        if key in table:
            engine = table.get("engine", "torch")
            yield f"{path}.{key}: engine {engine!r} computes in this process; remove {key!r}, or set engine = 'http'"


def _missing(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    if table.get("protocol") is None:
        yield f"{path}.protocol: engine 'http' needs it; valid: 'vllm', 'sglang', 'tei', 'reward-service'"
    if not table.get("urls"):
        yield f"{path}.urls: engine 'http' needs at least one server, such as 'http://127.0.0.1:8001'"


def _url_problems(path: str, urls: list[str]) -> Iterator[str]:
    for index, url in enumerate(urls):
        if (problem := _problem(url)) is not None:
            yield f"{path}[{index}]: {url!r} {problem}; valid: http://host:port or https://host:port"
    for url, count in Counter(url.rstrip("/") for url in urls).items():
        if count > 1:
            yield f"{path}: {url!r} stands there {count} times; name each server once"


def _problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    return _problem_of(parts)


def _problem_of(parts: SplitResult) -> str | None:
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if parts.username is not None or parts.password is not None:
        return "holds a password; put the key into an environment variable and name that in api_key_env"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "names more than a server; the protocol chooses the path"
    return None
