"""A store in Redis, shared by many replicas: one server, a Sentinel group or a Cluster."""

import asyncio
import logging
import math
import random
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from reward_service.config.store_urls import RedisAddress
from reward_service.errors import StoreUnavailable
from reward_service.stores.base import END, PAGE, Change, Values, changed, checked_keys, distinct_keys, expiry
from reward_service.stores.outage import Outage
from reward_service.stores.redis_scripts import (
    ADD,
    INDEX,
    PUT,
    REPLACE,
    TAG,
    Script,
    fingerprint,
    order,
    server_key,
)

log = logging.getLogger(__name__)

Client = Redis | RedisCluster
T = TypeVar("T")

MAX_CONNECTIONS = 16
LIMIT_S_PER_KEY = 5e-5
"""What each key of a call adds to the time that an answer may take."""
PARTS = 20
"""In so many parts the time for an answer is counted."""
CLOSING = 5
"""Closing a connection to a server that is frozen may take so many times as long as an answer."""
UPDATE_ATTEMPTS = 64
FIRST_UPDATE_PAUSE_S = 0.002
LONGEST_UPDATE_PAUSE_S = 0.1
LONGEST_TTL_S = 1e10
"""Over 300 years: Redis refuses what does not fit its clock."""


class RedisStore:
    """A Store at `address`, which the first operation connects to; used from one event loop.

    An answer may take `timeout_s`, and 50 µs more for each key. A server that failed is left alone for a moment, in
    which every call fails at once, and asked again within a second; nothing needs a restart.
    """

    def __init__(self, address: RedisAddress, *, timeout_s: float = 1.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._sentinel: Sentinel | None = None
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._outage = Outage(self._probe)
        self._updating: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closed = False
        self._is_checked = False

    async def get_many(self, keys: Sequence[str]) -> Values:
        """The values of `keys` in order, None where there is none; one command, all as of one moment."""
        names = [server_key(key) for key in checked_keys(keys)]
        values: Values = await self._ask("MGET", *names, keys=len(names)) if names else []
        return values

    async def put_many(self, items: Mapping[str, bytes], *, ttl_s: float | None = None) -> None:
        """Write all items or none; they expire after `ttl_s` seconds if given, else never."""
        await self._run(PUT, checked_keys(list(items)), [*items.values(), milliseconds(ttl_s)])

    async def add_many(self, items: Mapping[str, bytes], *, ttl_s: float) -> list[bool]:
        """Write each item whose key has no value, to expire after `ttl_s` seconds, and say which were written."""
        written = await self._run(ADD, checked_keys(list(items)), [*items.values(), milliseconds(ttl_s)])
        return [bool(one) for one in written or ()]

    async def update(self, keys: Sequence[str], change: Change) -> Values:
        """Replace the values of `keys` by `change(values)` (None deletes) and return the new values.

        Read, changed in a thread, and written by a script if all is still as it was read; else once more. Updates of
        this process that begin with the same key take turns, so that only other processes can come between.
        """
        if not distinct_keys(keys):
            return changed(change, [])
        async with self._updating.setdefault(keys[0], asyncio.Lock()):
            for attempt in range(UPDATE_ATTEMPTS):
                before = await self.get_many(keys)
                after = await asyncio.to_thread(changed, change, before)
                if after == before or await self._replace(keys, before, after):
                    return after
                pause = min(LONGEST_UPDATE_PAUSE_S, FIRST_UPDATE_PAUSE_S * 2.0**attempt)
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311
        raise self._unavailable(f"other processes wrote {keys[0]} or its like {UPDATE_ATTEMPTS} times in a row")

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, bytes]]:
        """The first `limit` lasting items whose key starts with `prefix` and is greater than `after`, in key order."""
        found: list[tuple[str, bytes]] = []
        while len(found) < limit:
            page = await self._listed(prefix, after, limit - len(found))
            if not page:
                break
            values = await self.get_many(page)
            found += [(key, value) for key, value in zip(page, values, strict=True) if value is not None]
            after = page[-1]
        return found

    async def ping(self) -> None:
        """Return when the server answers; waits for no other call."""
        self._refuse_closed()
        await self._outage.check()
        await self._attempt("PING")
        if not self._is_checked:
            self._is_checked = True
            await self._warn_of_eviction()

    async def close(self) -> None:
        """Close all connections; the store cannot be used afterwards."""
        self._closed = True
        client, self._client = self._client, None
        sentinels = self._sentinel.sentinels if self._sentinel else []
        for one in [client, *sentinels]:
            if one is not None:
                with suppress(RedisError, OSError):
                    await one.aclose()

    async def _listed(self, prefix: str, after: str, limit: int) -> list[str]:
        lowest = f"({server_key(after)}" if after >= prefix else f"[{server_key(prefix)}"
        highest = f"({server_key(prefix)}{END}"
        names = await self._ask("ZRANGEBYLEX", INDEX, lowest, highest, "LIMIT", 0, limit, keys=limit)
        return [name.decode().removeprefix(TAG) for name in names]

    async def _replace(self, keys: Sequence[str], before: Values, after: Values) -> bool:
        orders = [order(old, new) for old, new in zip(before, after, strict=True)]
        return bool(await self._run(REPLACE, keys, [*map(fingerprint, before), *orders]))

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        if not keys:
            return None
        rest = (len(keys) + 1, INDEX, *map(server_key, keys), *arguments)
        try:
            return await self._ask("EVALSHA", script.sha, *rest, keys=len(keys))
        except NoScriptError:  # a server that was started anew does not know it; EVAL teaches it
            return await self._ask("EVAL", script.text, *rest, keys=len(keys))

    async def _ask(self, *command: Any, keys: int = 1) -> Any:
        self._refuse_closed()
        self._outage.refuse_too_soon()
        async with self._places:
            await self._outage.check()
            return await self._attempt(*command, keys=keys)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self._address.shown} is closed")

    async def _attempt(self, *command: Any, keys: int = 1) -> Any:
        limit_s = self._timeout_s + keys * LIMIT_S_PER_KEY
        try:
            return await in_time(self._connected().execute_command(*command), limit_s)
        except NoScriptError:
            raise
        except (RedisError, RedisClusterException, OSError) as error:
            failure = self._unavailable(reason(error, limit_s))
            if is_down(error):
                self._outage.begin(failure.detail)
            elif isinstance(error, ReadOnlyError):
                await self._forget_idle()
            raise failure from error

    async def _probe(self) -> None:
        await self._forget_idle()
        try:
            await self._attempt("PING")
        except StoreUnavailable as failure:
            if is_down(failure.__cause__):
                raise

    async def _forget_idle(self) -> None:
        """Close the connections that wait for use: after a failure they may be dead, or lead to a former master."""
        if isinstance(self._client, Redis):
            with suppress(RedisError, OSError):
                await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _warn_of_eviction(self) -> None:
        try:
            policy = str((await self._ask("INFO", "memory")).get("maxmemory_policy", ""))
        except StoreUnavailable:
            return  # a user of Redis need not be allowed to ask
        if policy.startswith("allkeys"):
            log.warning(
                "the store %s has maxmemory-policy %s, which drops baselines when its memory is full; "
                "use noeviction, or volatile-lru, which drops only scores that are kept for speed",
                self._address.shown,
                policy,
            )

    def _connected(self) -> Client:
        if self._client is None:
            self._client, self._sentinel = connected(self._address, self._timeout_s)
        return self._client

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self._address.shown} failed: {why}")


def connected(address: RedisAddress, timeout_s: float) -> tuple[Client, Sentinel | None]:
    """A client that connects when it is first used and never sends a command twice; with Sentinel, that too."""
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": CLOSING * timeout_s,
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if address.is_encrypted:
        options |= {"ssl": True, **address.tls_files}
    if address.arrangement == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*host) for host in address.hosts], **options), None
    options["db"] = address.db
    if address.arrangement == "sentinel":
        asking = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        sentinel = Sentinel(address.hosts, sentinel_kwargs=asking, **options)
        return sentinel.master_for(address.service or ""), sentinel
    if address.socket_path is not None:
        return Redis(unix_socket_path=address.socket_path, **options), None
    ((host, port),) = address.hosts
    return Redis(host=host, port=port, **options), None


async def in_time(answer: Coroutine[Any, Any, T], limit_s: float) -> T:
    """The answer, or TimeoutError; `limit_s` is counted in parts, so that what delays this process is not counted.

    A busy event loop, or a process that had no processor for a while, is late for one part only and then finds both its
    timer and the answer: the server was not late.
    """
    asking = asyncio.create_task(answer)
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # retrieved, also when nobody waits now
    try:
        for _ in range(PARTS):
            if not asking.done():
                await asyncio.wait([asking], timeout=limit_s / PARTS)
    finally:
        if not asking.done():
            asking.cancel()
            await asyncio.wait([asking])
    if asking.cancelled():
        raise TimeoutError
    return asking.result()


def milliseconds(ttl_s: float | None) -> str:
    """How long an item lives, as the scripts take it; nothing for ever."""
    if expiry(0.0, ttl_s) is None or ttl_s is None:
        return ""
    return str(max(1, math.ceil(1e3 * min(ttl_s, LONGEST_TTL_S))))


def is_down(error: BaseException | None) -> bool:
    """Whether a call failed because nothing can be asked now; else the server answered and refused this one command.

    A server that cannot save its data refuses writes and even PING, and goes on to answer reads.
    """
    return isinstance(error, ClusterDownError | BusyLoadingError) or not isinstance(error, ResponseError)


def reason(error: Exception, limit_s: float) -> str:
    """Why a call failed, in words that tell the causes apart."""
    text = str(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {limit_s:.3g} s"
    if isinstance(error, AuthenticationError):
        return f"it refuses the user name or password: {text}"
    if isinstance(error, BusyLoadingError):
        return "it is still loading its data"
    if isinstance(error, ReadOnlyError):
        return "it is a read-only replica: a failover is under way, or the URL does not name the master"
    if isinstance(error, OutOfMemoryError) or "OOM" in text:
        return f"it is full (maxmemory) and takes no more writes: {text}"
    return text or type(error).__name__
