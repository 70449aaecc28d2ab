"""Where the service listens, who may call it, and what may enter."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from reward_service.config.section import Name, Section

LOOPBACK = ("127.0.0.1", "::1", "localhost")
Scope = Literal["score", "baselines", "admin", "metrics"]


def _sha256_in_hex(text: str) -> str:
    """The digest; the sentence does not quote what was given instead, since that may be the key itself."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(
            f"{len(text)} characters that are not a SHA-256 in hexadecimal (not shown: it may be a key); "
            "valid: 64 of 0-9a-f, as `reward-service key NAME` prints them"
        )
    return text


def _each_once(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes):
        raise ValueError(f"{scopes} repeats a scope; name each once")
    return scopes


class ServerConfig(Section):
    """Where the service listens."""

    host: str = "127.0.0.1"
    """Address to bind. One that is not a loopback address needs `[[api_keys]]`."""
    port: int = Field(8000, ge=0, le=65535)
    """TCP port; 0 takes a free one and prints it."""
    default_objective: str | None = None
    """Objective of a request that names none. With a single objective that one is the default."""


class LimitsConfig(Section):
    """What may enter."""

    max_request_conversations: int = Field(4096, ge=1)
    """Most conversations in one request; more are refused with 413."""
    max_request_bytes: int = Field(64 * 2**20, ge=1024)
    """Largest body of a request, in bytes; a larger one is refused with 413 and not read to its end."""
    max_held_bytes: int = Field(2**30, ge=1024)
    """Bytes that the bodies of all requests may hold at once; one that finds no room gets 429 with Retry-After."""
    max_queued_tokens: int = Field(4_000_000, ge=1)
    """Tokens that may wait per device; a request without room or time to be answered gets 429 with Retry-After."""
    max_connections: int = Field(4096, ge=1)
    """Most open connections; what comes over one more is answered with 429, and that connection is closed."""
    request_timeout_s: FiniteFloat = Field(120.0, gt=0, strict=False)
    """Longest time for one request, in seconds; a request may ask for less with `timeout_s`."""
    header_timeout_s: FiniteFloat = Field(10.0, gt=0, strict=False)
    """Longest time that a caller may take to send the headers of a request, in seconds; a slower one gets 408."""
    body_timeout_s: FiniteFloat = Field(60.0, gt=0, strict=False)
    """Longest time that a caller may take to send the body of a request, in seconds; a slower one gets 408."""
    send_timeout_s: FiniteFloat = Field(60.0, gt=0, strict=False)
    """Longest time in which a caller may take in nothing of its answer, in seconds; then the connection is closed."""


class ApiKeyConfig(Section):
    """A key that opens the routes of its scopes. Without any key in the file every route is open."""

    name: Name
    """Who holds the key, for logs and metrics."""
    sha256: Annotated[str, AfterValidator(_sha256_in_hex)]
    """SHA-256 of the key in hexadecimal; `reward-service key NAME` makes a key and prints this table."""
    scopes: Annotated[list[Scope], Field(min_length=1), AfterValidator(_each_once)]
    """What the key opens: `score`, `baselines`, `metrics`, `admin`. None includes another."""


def access_problems(tables: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with server, limits and keys together."""
    yield from _open_to_the_network(_table(tables, "server"), tables.get("api_keys"))
    yield from _no_room_for_one(_table(tables, "limits"))
    keys = tables.get("api_keys")
    yield from _repeated_digests(keys if isinstance(keys, list) else [])


def _table(tables: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    value = tables.get(section)
    return value if isinstance(value, Mapping) else {}


def _open_to_the_network(server: Mapping[str, Any], keys: object) -> Iterator[str]:
    host = server.get("host", LOOPBACK[0])
    if isinstance(host, str) and host not in LOOPBACK and not keys:
        yield (
            f"server.host: {host!r} is reachable from the network and the service has no API keys; valid: "
            f"{', '.join(LOOPBACK)}, or any address with [[api_keys]] (`reward-service key NAME` makes one)"
        )


def _no_room_for_one(limits: Mapping[str, Any]) -> Iterator[str]:
    default = LimitsConfig()
    largest = limits.get("max_request_bytes", default.max_request_bytes)
    held = limits.get("max_held_bytes", default.max_held_bytes)
    if isinstance(largest, int) and isinstance(held, int) and held < largest:
        yield f"limits.max_held_bytes: {held} is less than max_request_bytes, {largest}: not even one such body fits"


def _repeated_digests(keys: Sequence[Any]) -> Iterator[str]:
    digests = [key.get("sha256") if isinstance(key, Mapping) else None for key in keys]
    for i, digest in enumerate(digests):
        if digest is not None and digest in digests[:i]:
            yield f"api_keys[{i}].sha256: the same as that of api_keys[{digests.index(digest)}]; each needs its own key"
