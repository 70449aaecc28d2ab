"""Redis as it is really run: behind TLS, on a socket, watched by Sentinel, as a Cluster."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from reward_service.errors import StoreUnavailable
from reward_service.stores import Store, open_store
from tests.ports import HeldPort
from tests.redis_server import RedisServer
from tests.stores.clocks import PATIENT_S

LIMIT_S = 120.0
"""A Sentinel that had no processor for two seconds trusts its clock only 30 seconds later."""
RIGHTS = ["~{rw}*", "+mget", "+get", "+set", "+del", "+zadd", "+zrem", "+zrangebylex", "+eval", "+evalsha"]
RIGHTS += ["+ping", "+info", "+select"]


def patient(url: str) -> Store:
    """A store that waits long for an answer."""
    return open_store(url, timeout_s=PATIENT_S)


async def settled(store: Store) -> None:
    """Wait until the store answers."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await store.ping()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def used(store: Store) -> None:
    """Every operation once."""
    await settled(store)
    await store.put_many({"a": b"1", "b": b"1"})
    assert await store.add_many({"a": b"2", "c": b"2"}, ttl_s=100) == [False, True]
    assert await store.update(["a", "b"], lambda values: [b"3", None]) == [b"3", None]
    assert await store.get_many(["a", "b", "c"]) == [b"3", None, b"2"]
    assert await store.scan("") == [("a", b"3")]
    await store.close()


async def test_a_socket(tmp_path: Path) -> None:
    with RedisServer(tmp_path, ["--unixsocket", str(tmp_path / "redis.sock"), "--databases", "3"]) as server:
        await used(patient(f"unix://{tmp_path}/redis.sock?db=2"))
        assert server.command("INFO", "keyspace").keys() == {"db2"}


async def test_a_user_with_a_password_of_any_characters_and_a_database(tmp_path: Path) -> None:
    password = "p@ss/w:rd?#1"
    with RedisServer(tmp_path) as server:
        server.command("ACL", "SETUSER", "rewards", "on", f">{password}", *RIGHTS)
        await used(patient(f"redis://rewards:{password}@127.0.0.1:{server.port}/5"))
        assert server.command("INFO", "keyspace").keys() == {"db5"}


def certificate(folder: Path) -> None:
    """A key and a certificate for this machine, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    line = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    out = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", *line.split(), *out], check=True, capture_output=True)


async def test_tls_with_a_certificate_that_is_checked(tmp_path: Path) -> None:
    certificate(tmp_path)
    cert = str(tmp_path / "cert.pem")
    options = ["--tls-cert-file", cert, "--tls-key-file", str(tmp_path / "key.pem"), "--tls-ca-cert-file", cert]
    options += ["--tls-auth-clients", "no"]
    with HeldPort() as held, RedisServer(tmp_path, [*options, "--tls-port", str(held.number)]):
        await used(patient(f"rediss://127.0.0.1:{held.number}/0?ssl_ca_certs={cert}"))
        distrusting = patient(f"rediss://127.0.0.1:{held.number}")
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            await distrusting.ping()
        await distrusting.close()


async def test_a_cluster(tmp_path: Path) -> None:
    options = ["--cluster-enabled", "yes", "--cluster-port"]
    with HeldPort() as held, RedisServer(tmp_path, [*options, str(held.number)]) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(LIMIT_S):
            while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
                await asyncio.sleep(0.05)
        await used(patient(f"redis+cluster://127.0.0.1:{server.port}"))


async def test_a_cluster_that_is_not_there_is_unavailable() -> None:
    with HeldPort() as held:
        store = open_store(f"redis+cluster://127.0.0.1:{held.number}")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="failed: "):
                await store.ping()
        await store.close()


def watching(master: RedisServer, file: Path) -> Path:
    """The configuration of a sentinel that watches `master` as `rewards`; it keeps its state in the file too.

    It does not take a master for dead that was slow to answer.
    """
    file.write_text(
        f"sentinel monitor rewards 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds rewards 60000\nsentinel failover-timeout rewards 3000\n"
    )
    return file


async def test_sentinel_leads_to_the_new_master_after_a_failover(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with (
        RedisServer(folders[0], ["--repl-diskless-sync-delay", "0"]) as master,
        RedisServer(folders[1], ["--replicaof", "127.0.0.1", str(master.port)]) as replica,
        RedisServer(folders[2], sentinel=watching(master, folders[2] / "sentinel.conf")) as sentinel,
    ):
        store = patient(f"redis+sentinel://127.0.0.1:{sentinel.port}/rewards")
        await settled(store)
        await store.put_many({"a": b"1"})
        async with asyncio.timeout(LIMIT_S):
            while replica.command("EXISTS", "{rw}a") == 0 or not sentinel.command("SENTINEL", "REPLICAS", "rewards"):
                await asyncio.sleep(0.05)
        sentinel.command("SENTINEL", "SET", "rewards", "down-after-milliseconds", 500)
        master.kill()
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    await store.put_many({"b": b"2"})
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
        assert await store.get_many(["a", "b"]) == [b"1", b"2"]
        assert replica.command("GET", "{rw}b") == b"2"
        await store.close()
