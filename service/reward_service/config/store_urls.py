"""Store URLs: what one may say, read once, and shown without its password.

An error quotes only what cannot be a password that was written in the wrong place: no query, and nothing that stands
beside a host until the host and its port are known to be those.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote

Arrangement = Literal["single", "sentinel", "cluster"]
Host = tuple[str, int]

REDIS_PORT = 6379
SENTINEL_PORT = 26379
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class MemoryAddress:
    """A store in this process."""


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A store in the file `path`."""

    path: str


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A store in Redis: one server (`hosts` has one, or `socket_path` is given), a Sentinel group or a Cluster.

    With Sentinel, `hosts` are the sentinels and `service` names the master that they watch. `shown` is the URL without
    user name, password and query.
    """

    shown: str
    arrangement: Arrangement = "single"
    hosts: tuple[Host, ...] = ()
    socket_path: str | None = None
    service: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_encrypted: bool = False
    tls_files: dict[str, str] = field(default_factory=dict)


Address = MemoryAddress | SqliteAddress | RedisAddress


def store_address(url: str) -> Address:
    """What a store URL says; a ValueError, which never shows a password, when it is not one."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in READERS:
        what = f"'{scheme}://...'" if separator and SCHEME.fullmatch(scheme) else f"a text that is no URL {UNSHOWN}"
        raise ValueError(f"{what} names no known store; valid: {', '.join(FORMS)}")
    return READERS[scheme](scheme, rest)


def _memory(_scheme: str, _rest: str) -> MemoryAddress:
    return MemoryAddress()


def _sqlite(_scheme: str, rest: str) -> SqliteAddress:
    if not rest.startswith("/") or rest == "/":
        raise ValueError(
            "'sqlite://...' names no file; valid: sqlite:///relative/path.db or sqlite:////absolute/path.db"
        )
    return SqliteAddress(rest[1:])


def _redis(scheme: str, rest: str) -> RedisAddress:
    username, password, where = _credentials(rest)
    location, _, query = where.partition("?")
    shown = f"{scheme}://{location}"
    base, _, kind = scheme.partition("+")
    names, _, path = location.partition("/")
    arrangement: Arrangement = "cluster" if kind == "cluster" else "sentinel" if kind == "sentinel" else "single"
    hosts = _hosts(scheme, names, arrangement)
    options = _options(shown, query, TLS_FILES if base == "rediss" else ())
    service, db = _path(shown, arrangement, path)
    return RedisAddress(
        shown=shown,
        arrangement=arrangement,
        hosts=hosts,
        service=service,
        db=db,
        username=username,
        password=password,
        is_encrypted=base == "rediss",
        tls_files=options,
    )


def _unix(_scheme: str, rest: str) -> RedisAddress:
    username, password, where = _credentials(rest)
    path, _, query = where.partition("?")
    if not path.startswith("/") or path == "/":
        raise ValueError("'unix://...' names no socket; valid: unix:///absolute/path.sock, with ?db=N if needed")
    shown = f"unix://{path}"
    db = _number(shown, _options(shown, query, ("db",)).get("db", "0"))
    return RedisAddress(shown=shown, socket_path=unquote(path), db=db, username=username, password=password)


def _credentials(rest: str) -> tuple[str | None, str | None, str]:
    """User name, password and what follows them; a password may hold any character but must not look like `%41`."""
    given, _, where = rest.rpartition("@")
    username, _, password = given.partition(":")
    return unquote(username) or None, unquote(password) or None, where


def _hosts(scheme: str, text: str, arrangement: Arrangement) -> tuple[Host, ...]:
    port = SENTINEL_PORT if arrangement == "sentinel" else REDIS_PORT
    hosts = tuple(_host(scheme, one, port) for one in text.split(","))
    if len(hosts) > 1 and arrangement == "single":
        raise ValueError(
            f"'{scheme}://{text}' names {len(hosts)} servers; valid: one, or redis+sentinel:// or redis+cluster://"
        )
    return hosts


def _host(scheme: str, text: str, default_port: int) -> Host:
    bracketed, bracket, after = text.partition("]")
    host, _, port = (bracketed[1:], "", after.removeprefix(":")) if bracket else text.partition(":")
    if not host or (bracket and not text.startswith("[")):
        what = f"'{scheme}://...' {UNSHOWN}" if text else f"'{scheme}://'"
        raise ValueError(f"{what} names no host; valid: host, host:port or [IPv6 address]:port")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"'{scheme}://{host}:...': what follows the host is not a port {UNSHOWN}; valid: 1 to 65535")
    return host, int(port) if port else default_port


def _path(shown: str, arrangement: Arrangement, path: str) -> tuple[str | None, int]:
    """The name of the watched master (for Sentinel only) and the database."""
    parts = path.split("/") if path else []
    service = parts.pop(0) if arrangement == "sentinel" and parts else None
    if arrangement == "sentinel" and not service:
        raise ValueError(
            f"{shown!r} names no master; valid: redis+sentinel://host:port,host:port/master or .../master/db"
        )
    if len(parts) > 1:
        raise ValueError(f"{shown!r}: {'/'.join(parts)!r} is not a database; valid: a number, 0 unless given")
    db = _number(shown, parts[0]) if parts and parts[0] else 0
    if arrangement == "cluster" and db:
        raise ValueError(f"{shown!r} names database {db}; a Redis Cluster has database 0 only")
    return service, db


def _number(shown: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{shown!r} names a database that is not a number; valid: a number, 0 unless given")
    return int(text)


def _options(shown: str, query: str, valid: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options.keys() - set(valid):
        raise ValueError(f"{shown!r} has an unknown option {UNSHOWN}; valid: {', '.join(valid) or '(none)'}")
    return options


SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
UNSHOWN = "(not shown: it may be a password)"
FORMS = (
    "memory://",
    "sqlite:///path",
    "redis://host:port/db",
    "rediss://host:port/db",
    "unix:///path",
    "redis+sentinel://host:port,host:port/master/db",
    "redis+cluster://host:port",
)
READERS: dict[str, Callable[[str, str], Address]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "redis+sentinel": _redis,
    "rediss+sentinel": _redis,
    "redis+cluster": _redis,
    "rediss+cluster": _redis,
    "unix": _unix,
}
