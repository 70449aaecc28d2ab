"""Where a trainer's rewards come from: arguments, or the environment of its processes."""

import atexit
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Unpack

from reward_service.client.async_client import AsyncClient
from reward_service.client.calls import Json
from reward_service.client.client import Client
from reward_service.client.settings import KEY_VARIABLE, Options, Settings
from reward_service.problems import nearest
from reward_service.schemas import ScoreAnswer

URL_VARIABLE = "REWARD_SERVICE_URL"
OBJECTIVE_VARIABLE = "REWARD_SERVICE_OBJECTIVE"
ARGUMENTS = ("url", "objective", *Options.__annotations__)
Urls = str | Sequence[str]


class Connection:
    """A reward service and one of its objectives, as the callables of trainers use it.

    It connects at its first call, in each process and for each event loop anew. It may be pickled and used after a
    fork: where it arrives, copies with equal arguments are one. A copy made after the first answer of a pinned run
    expects what that answer named. The pickle holds the API key.
    """

    def __init__(self, urls: Sequence[str], objective: str | None, options: Options) -> None:
        self.objective = objective
        self._settings = Settings(urls, **options)
        self._options = options

    def score(self, conversations: Sequence[Json], **options: Any) -> ScoreAnswer:
        """As `Client.score` with the objective of this connection."""
        return self._client.score(conversations, self.objective, **options)

    async def score_async(self, conversations: Sequence[Json], **options: Any) -> ScoreAnswer:
        """As `AsyncClient.score` with the objective of this connection."""
        return await self._async_client.score(conversations, self.objective, **options)

    def expectation(self) -> dict[str, Any] | None:
        """What the next answer must name: give it to `connect` of a resumed run as `expect`; None before an answer."""
        clients = [one for name in ("_client", "_async_client") if (one := self.__dict__.get(name))]
        told = [one.expectation(self.objective) for one in clients] or [self._settings.expect]
        return next((dict(one) for one in told if one), None)

    def anew(self) -> "Connection":
        """The same for another run: what the answers to this one named does not count there."""
        return Connection(self._settings.urls, self.objective, self._options)

    @cached_property
    def _client(self) -> Client:
        client = Client(self._settings.urls, **self._options)
        atexit.register(client.close)
        return client

    @cached_property
    def _async_client(self) -> AsyncClient:
        return AsyncClient(self._settings.urls, **self._options)

    def __repr__(self) -> str:
        return f"Connection({', '.join(self._settings.urls)}, objective={self.objective!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        expected: Options = {"expect": self.expectation()}
        return _arrived, (self._settings.urls, self.objective, {**self._options, **expected})


def connect(url: Urls | None = None, objective: str | None = None, **options: Unpack[Options]) -> Connection:
    """The connection of this process for these arguments: always the same one.

    What is not given comes from REWARD_SERVICE_URL (replicas separated by commas, as `url` may be too),
    REWARD_SERVICE_OBJECTIVE (else the service's default) and REWARD_SERVICE_API_KEY. The other options are those of
    `Client`, with `pin=True`. ValueError for what is missing or not valid.
    """
    for name in options:
        if name not in Options.__annotations__:
            raise ValueError(f"{name}: no such option{nearest(name, ARGUMENTS)}")
    if not isinstance(objective, str | None):
        raise ValueError(f"objective: {objective!r}; valid: the name of one objective")
    urls = _urls(url or os.environ.get(URL_VARIABLE) or "")
    if not urls:
        raise ValueError(f"url: none given; valid: url='http://host:port', or the environment variable {URL_VARIABLE}")
    key = options.get("api_key") or os.environ.get(KEY_VARIABLE) or None
    chosen: Options = {"pin": True, **options, "api_key": key}
    return _arrived(urls, objective or os.environ.get(OBJECTIVE_VARIABLE) or None, chosen)


def refuse_none(options: Mapping[str, Any], why: str) -> None:
    """ValueError for `on_failure="none"`, in a trainer that has no such thing as a missing reward."""
    if options.get("on_failure") == "none":
        raise ValueError(f"on_failure: 'none', but {why}; valid: 'raise', or a number of your own")


def refuse_number(options: Mapping[str, Any]) -> None:
    """ValueError for a number as `on_failure`, where the terms of an objective are rewards of their own."""
    if not isinstance(options.get("on_failure", "raise"), str):
        raise ValueError(
            f"on_failure: {options['on_failure']!r}, but no single number can stand for every term; valid: 'raise', "
            "and 'none' where a reward may be missing"
        )


def _urls(given: Urls) -> list[str]:
    parts: Iterable[str] = given.split(",") if isinstance(given, str) else given
    return [part.strip() for part in parts if part.strip()]


def _arrived(urls: Sequence[str], objective: str | None, options: Options) -> Connection:
    given = {name: value for name, value in options.items() if value is not None}
    return _connection(json.dumps([urls, objective, given], sort_keys=True, default=_plain))


@cache
def _connection(arguments: str) -> Connection:
    return Connection(*json.loads(arguments))


def _plain(value: object) -> object:
    """Mappings and sequences of a trainer's own configuration types as those of Python."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{value!r:.80} is a {type(value).__name__}; valid: str, number, bool, None, list and dict")
