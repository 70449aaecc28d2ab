"""Two replicas under load while their Redis is killed, frozen, slow or full: no wrong number, no restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.conftest import Running, Start
from tests.redis_server import DURABLE, RedisServer
from tests.replicas.conversations import CONFIG, asked, prompt, written
from tests.replicas.load import LONGEST_S, Load, merged_rows, ready
from tests.slow_proxy import SlowProxy

WORKERS = 12
TIMEOUT_S = 0.5
OUTAGES = 1
OUTAGE_S = 1.0
FROZEN_S = 2.2
PATIENT_S = 5.0
"""The store's limit of time where it is not what a test is about: a busy disk or machine is no outage."""
NEEDS_NO_STORE = ("given", "constant", "canned", "raw")


@asynccontextmanager
async def replicas(start: Start, url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two services on the store, in which the references of all prompts are."""
    config = CONFIG.format(url=url)
    async with start(config) as patient:
        stored = await patient.http.put("/v1/baselines", json=written())
        assert stored.status_code == 200, stored.text
    config = config.replace(f"timeout_s = {PATIENT_S}", f"timeout_s = {timeout_s}")
    async with start(config) as here, start(config) as there:
        running: tuple[Running, Running] = here, there
        yield [one.http for one in running]


async def unready(clients: list[httpx.AsyncClient]) -> list[str]:
    """What the replicas say of a store that fails, as soon as both see it."""
    async with asyncio.timeout(30):
        while "ready" in (said := [await ready(client) for client in clients]):
            await asyncio.sleep(0.02)
    return said


def judge(load: Load) -> None:
    """What must hold of every outage: some requests failed as they should, the others never."""
    assert load.outcomes["stored", "store_unavailable"] > 0
    for kind in NEEDS_NO_STORE:
        assert load.outcomes[kind, "answered"] > 0
        assert load.outcomes[kind, "store_unavailable"] == 0
    assert load.longest_s < LONGEST_S


async def test_a_store_that_is_killed_and_comes_back(start: Start, tmp_path: Path) -> None:
    with RedisServer(tmp_path, DURABLE) as server:
        async with replicas(start, server.url) as clients:
            load = Load(clients)
            async with load.running(WORKERS):
                for _ in range(OUTAGES):
                    await load.again_answered()
                    server.kill()
                    for said in await unready(clients):
                        assert said.startswith(f"the store {server.url} failed: ")
                    await load.again_refused("stored")
                    await asyncio.sleep(OUTAGE_S)
                    server.start()
                    await load.again_answered()
            judge(load)
            assert [await ready(client) for client in clients] == ["ready", "ready"]
            assert await merged_rows(clients[0]) >= min(load.merged, 256)


async def test_a_store_that_is_frozen_for_two_seconds(start: Start, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with replicas(start, server.url, TIMEOUT_S) as clients:
            load = Load(clients)
            async with load.running(WORKERS):
                for _ in range(OUTAGES):
                    await load.again_answered()
                    server.pause()
                    for said in await unready(clients):
                        assert f"no answer within {TIMEOUT_S:g} s" in said
                    await load.again_refused("stored")
                    await asyncio.sleep(FROZEN_S)
                    server.resume()
                    await load.again_answered()
            judge(load)
            assert load.merged <= await merged_rows(clients[1]) or load.merged > 256


async def test_a_store_that_takes_two_seconds_for_each_answer(start: Start, redis_server: RedisServer) -> None:
    async with (
        SlowProxy(redis_server.port) as proxy,
        replicas(start, f"redis://127.0.0.1:{proxy.port}", TIMEOUT_S) as clients,
    ):
        load = Load(clients)
        async with load.running(WORKERS):
            for _ in range(OUTAGES):
                await load.again_answered()
                proxy.delay_s = 2.0
                for said in await unready(clients):
                    assert f"no answer within {TIMEOUT_S:g} s" in said
                await load.again_refused("stored")
                await asyncio.sleep(OUTAGE_S)
                proxy.delay_s = 0.0
                await load.again_answered()
        judge(load)


async def test_a_store_that_is_full_is_read_and_refuses_writes(start: Start, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with replicas(start, server.url) as clients:
            load = Load(clients)
            async with load.running(WORKERS):
                for _ in range(OUTAGES):
                    await load.again_answered()
                    server.command("CONFIG", "SET", "maxmemory", "1")
                    refused = await clients[0].put("/v1/baselines", json=written("other"))
                    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
                    assert "is full (maxmemory)" in refused.json()["detail"]
                    await load.again_refused("merge")
                    await asyncio.sleep(OUTAGE_S)
                    server.command("CONFIG", "SET", "maxmemory", "0")
                    await load.again_answered()
            assert load.outcomes["merge", "store_unavailable"] > 0
            for kind in ("stored", *NEEDS_NO_STORE):
                assert load.outcomes[kind, "store_unavailable"] == 0


async def test_a_store_that_lost_its_data_is_said_to_have_lost_it(start: Start, redis_server: RedisServer) -> None:
    async with replicas(start, redis_server.url) as clients:
        load = Load(clients)
        async with load.running(4):
            await load.again_answered()
        redis_server.command("FLUSHALL")
        for client in clients:
            answer = await client.post("/v1/score", json=asked("stored", prompt(1)))
            error = answer.json()["scores"][0]["error"]
            assert (error["code"], error["status"]) == ("store_unavailable", 503)
            assert "lost the baselines of policy 'sft'; store them again" in error["detail"]
        assert (await clients[0].put("/v1/baselines", json=written())).status_code == 200
        async with load.running(4):
            await load.again_answered()


async def test_a_request_that_expects_a_revision_is_refused_while_the_store_is_gone(
    start: Start, tmp_path: Path
) -> None:
    with RedisServer(tmp_path) as server:
        async with replicas(start, server.url) as clients:
            request = asked("stored", prompt(1)) | {"expect": {"baselines": {"sft": 1}}}
            assert (await clients[0].post("/v1/score", json=request)).status_code == 200
            server.kill()
            refused = await clients[0].post("/v1/score", json=request)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
