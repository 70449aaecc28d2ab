"""Store URLs: each form is understood, each mistake is named, and no password is ever shown."""

import re
import tomllib

import pytest

from reward_service.config import parse_config
from reward_service.config.store_urls import MemoryAddress, RedisAddress, SqliteAddress, store_address
from reward_service.errors import ConfigError

MODEL = '[[models]]\nname = "helpful"\nsource = "org/helpful"\n'


def redis(url: str) -> RedisAddress:
    address = store_address(url)
    assert isinstance(address, RedisAddress)
    return address


def test_a_file_and_a_store_in_memory() -> None:
    assert store_address("memory://") == MemoryAddress()
    assert store_address("sqlite:///a/b.db") == SqliteAddress("a/b.db")
    assert store_address("sqlite:////a/b.db") == SqliteAddress("/a/b.db")


@pytest.mark.parametrize(
    ("url", "hosts", "db"),
    [
        ("redis://cache", (("cache", 6379),), 0),
        ("redis://cache:7000/3", (("cache", 7000),), 3),
        ("redis://cache/", (("cache", 6379),), 0),
        ("redis://[::1]:7000", (("::1", 7000),), 0),
        ("redis+cluster://a:1,b", (("a", 1), ("b", 6379)), 0),
        ("rediss+cluster://a:1", (("a", 1),), 0),
        ("redis+sentinel://a,b:2/rewards/4", (("a", 26379), ("b", 2)), 4),
    ],
)
def test_servers_and_databases(url: str, hosts: tuple[tuple[str, int], ...], db: int) -> None:
    address = redis(url)
    assert (address.hosts, address.db) == (hosts, db)
    assert address.is_encrypted == url.startswith("rediss")


def test_a_sentinel_url_names_the_master() -> None:
    address = redis("redis+sentinel://:secret@a:1/rewards")
    assert (address.arrangement, address.service, address.password) == ("sentinel", "rewards", "secret")


@pytest.mark.parametrize(
    ("credentials", "username", "password"),
    [
        ("", None, None),
        ("me:secret@", "me", "secret"),
        (":secret@", None, "secret"),
        ("me:a%40b%25@", "me", "a@b%"),
        ("me:a@b/c:d?e#f@", "me", "a@b/c:d?e#f"),
    ],
)
def test_user_names_and_passwords(credentials: str, username: str | None, password: str | None) -> None:
    for url in (f"redis://{credentials}cache:1/2", f"redis+cluster://{credentials}cache:1", f"unix://{credentials}/s"):
        address = redis(url)
        assert (address.username, address.password) == (username, password)
        assert password is None or password not in address.shown + repr(address)


def test_tls_files_and_a_socket() -> None:
    files = {"ssl_ca_certs": "/etc/ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem"}
    query = "&".join(f"{name}={path}" for name, path in files.items())
    assert redis(f"rediss://cache?{query}").tls_files == files
    assert (redis("unix:///run/redis.sock?db=2").socket_path, redis("unix:///run/redis.sock?db=2").db) == (
        "/run/redis.sock",
        2,
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:secret@x", "'mysql://...' names no known store; valid: memory://, sqlite:///path, redis://"),
        ("foo://:se://cret@h", "'foo://...' names no known store"),
        ("redis:/me:secret@x", "a text that is no URL (not shown: it may be a password) names no known store"),
        ("me:secret@foo://x", "a text that is no URL (not shown: it may be a password) names no known store"),
        ("sqlite://me:secret@x", "'sqlite://...' names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("redis://", "'redis://' names no host"),
        ("redis://:secret@/0", "'redis://' names no host"),
        ("redis://:secret", "'redis://...' (not shown: it may be a password) names no host"),
        ("redis://:sec/secret", "'redis://...' (not shown: it may be a password) names no host"),
        ("redis://me:secret", "'redis://me:...': what follows the host is not a port (not shown"),
        ("redis+sentinel://a:1,me:secret/x", "'redis+sentinel://me:...': what follows the host is not a port"),
        ("redis://:secret@cache:port", "'redis://cache:...': what follows the host is not a port"),
        ("redis://:secret@cache:0", "(not shown: it may be a password); valid: 1 to 65535"),
        ("redis://:secret@cache/first", "'redis://cache/first' names a database that is not a number; valid: a number"),
        ("redis://:secret@cache/1/2", "is not a database"),
        ("redis://cache/x?password=secret", "has an unknown option (not shown: it may be a password); valid: (none)"),
        ("redis+cluster://cache/0?secret", "'redis+cluster://cache/0' has an unknown option"),
        ("redis://:secret@a,b", "'redis://a,b' names 2 servers; valid: one, or redis+sentinel:// or redis+cluster://"),
        (
            "redis://:secret@a?timeout=3",
            "'redis://a' has an unknown option (not shown: it may be a password); valid: (none)",
        ),
        ("rediss://:secret@a?ssl_ca=3", "it may be a password); valid: ssl_ca_certs, ssl_certfile, ssl_keyfile"),
        ("redis+sentinel://:secret@a:1", "names no master"),
        ("redis+cluster://:secret@a/1", "a Redis Cluster has database 0 only"),
        ("unix://", "names no socket"),
        ("unix://:secret/a", "'unix://...' names no socket"),
        ("unix:///a?db=secret", "'unix:///a' names a database that is not a number"),
    ],
)
def test_a_url_that_is_not_one_is_refused_with_what_is_valid_and_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        store_address(url)
    assert "secret" not in str(caught.value)
    assert "cret@" not in str(caught.value)


def test_a_configuration_takes_the_password_from_the_environment_and_does_not_show_it() -> None:
    good = f'{MODEL}[store]\nurl = "redis://:${{PASSWORD}}@cache:6379/1"\ntimeout_s = 2\ncanned_ttl_s = 60\n'
    config = parse_config(tomllib.loads(good), {"PASSWORD": "s3cr3t"})
    assert redis(config.store.url).password == "s3cr3t"
    assert (config.store.timeout_s, config.store.canned_ttl_s) == (2.0, 60.0)
    assert "s3cr3t" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(good.replace("6379", "x")), {"PASSWORD": "s3cr3t"})
    assert "store.url: 'redis://cache:...': what follows the host is not a port" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ConfigError, match=re.escape("store.url: ${PASSWORD} is not set in the environment")):
        parse_config(tomllib.loads(good), {})
