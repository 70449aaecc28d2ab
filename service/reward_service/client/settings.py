"""How a client behaves: every option of Client and AsyncClient, checked once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from pydantic import ValidationError

from reward_service.schemas import Expectation

OnFailure = Literal["raise", "none"] | float
MIB = 2**20
KEY_VARIABLE = "REWARD_SERVICE_API_KEY"
"""The environment variable with the API key, for whatever takes it from there."""


class Options(TypedDict, total=False):
    """The keyword arguments of both clients; `Settings` says what each means."""

    api_key: str | None
    on_failure: OnFailure
    pin: bool
    expect: Mapping[str, Any] | None
    deadline_s: float
    timeout_s: float
    max_concurrency: int
    max_conversations_per_request: int
    max_bytes_per_request: int
    log_every_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a client; ValueError names the first one that is not valid. The key is never shown."""

    base_url: str | Sequence[str]
    """The service, or several replicas of it: `http://host:port`."""
    api_key: str | None = field(default=None, repr=False)
    """Sent as `Authorization: Bearer`."""
    on_failure: OnFailure = "raise"
    """What a conversation without a reward becomes: ScoringFailed, None (`none`), or this number."""
    pin: bool = False
    """Expect of every answer what the first one named."""
    expect: Mapping[str, Any] | None = None
    """What every answer must name, from the first on: `objective_hash`, `models`, `baselines`."""
    deadline_s: float = 300.0
    """Longest time for one call, all its tries and waits together, in seconds."""
    timeout_s: float = 150.0
    """Longest time for one try, in seconds; a little more than the service's `limits.request_timeout_s`."""
    max_concurrency: int = 128
    """Requests under way at once, over all threads, or all tasks of an event loop, that use the client."""
    max_conversations_per_request: int = 512
    """A larger call is split, never inside a group. Reference responses count as conversations."""
    max_bytes_per_request: int = 16 * MIB
    """A larger body is split, never inside a group."""
    log_every_s: float = 10.0
    """How often a client that waits says what for, in seconds."""

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("base_url: no URL; valid: http://host:port, or a list of them")
        for url in self.urls:
            _check_url(url)
        if len(set(self.urls)) != len(self.urls):
            raise ValueError(f"base_url: {list(self.urls)!r} names a service twice")
        _check_key(self.api_key)
        _check_on_failure(self.on_failure)
        _check_expect(self.expect)
        for name in ("deadline_s", "timeout_s", "log_every_s"):
            _check_seconds(name, getattr(self, name))
        for name in ("max_concurrency", "max_conversations_per_request", "max_bytes_per_request"):
            _check_count(name, getattr(self, name))

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs without a slash at the end."""
        given = (self.base_url,) if isinstance(self.base_url, str) else tuple(self.base_url)
        return tuple(url.rstrip("/") for url in given)

    @property
    def raises(self) -> bool:
        """Whether a failure is an exception."""
        return self.on_failure == "raise"


def _check_url(url: str) -> None:
    if "@" in url:  # wherever it stands: a password may hold any character, and then the URL is read wrongly
        raise ValueError(
            "base_url: a URL with a user or a password ends up in logs; valid: http://host:port and api_key; "
            "an @ in a path is written %40"
        )
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.query or parts.fragment:
        raise ValueError(f"base_url: {url!r} is no URL of a service; valid: http://host:port or https://host/path")


def _check_key(key: str | None) -> None:
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
        raise ValueError("api_key: not a key: empty, or with spaces around it, line ends or characters outside ASCII")


def _check_on_failure(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and value not in ("raise", "none"):
        raise ValueError(f"on_failure: {value!r}; valid: 'raise', 'none', or a finite number")


def _check_expect(value: object) -> None:
    if value is None:
        return
    try:
        Expectation.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["expect", *map(str, first["loc"])])
        valid = "objective_hash, models (fingerprint by model), baselines (revision by policy)"
        raise ValueError(f"{where}: {first['input']!r}: {first['msg']}; valid: {valid}") from error


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name}: {value!r}; valid: a number of seconds over 0")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r}; valid: a whole number from 1 on")
