"""Many stored prompts: memory per prompt, and how long a look-up of 256 prompts takes, in Redis and in SQLite.

python -m benchmarks.redis_store [--prompts 1000000] [--sqlite-prompts 100000] [--out results.json]

Starts a redis-server of its own. Every prompt has 16 references of one label; look-ups ask for 256 random prompts.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.machine import described
from redis import Redis
from redis.exceptions import ConnectionError as NotListening

from reward_service.baselines import Baselines, Entry, PolicyState, RowsKey, StoredRows
from reward_service.baselines.entries import sent_by_prompt
from reward_service.baselines.keys import policy_key
from reward_service.baselines.records import encode_rows, encode_state
from reward_service.stores import Store, open_store

MODEL = "sha256:" + "a" * 64
POLICY = "sft"
REFERENCES = 16
AT_ONCE = 256
LOOK_UPS = 1000
WRITTEN_AT_ONCE = 1000
WRITERS = 4


def key(index: int) -> RowsKey:
    """Where the rows of a prompt lie."""
    return RowsKey(MODEL, POLICY, hashlib.sha256(str(index).encode()).hexdigest())


def records(start: int, end: int, chance: np.random.Generator) -> dict[str, bytes]:
    """The rows of some prompts as they are stored."""
    rewards = chance.normal(size=(end - start, REFERENCES))
    keys = [key(index) for index in range(start, end)]
    entries = [Entry(one.prompt, row) for one, row in zip(keys, rewards, strict=True)]
    sent = sent_by_prompt(entries, 1, str(start))
    return {one.store_key: encode_rows(StoredRows(sent[one.prompt].rows, 1)) for one in keys}


async def written(store: Store, prompts: int) -> float:
    """Write the rows of so many prompts and the policy's state; seconds, without the time to make the rows."""
    chance = np.random.default_rng(0)
    spent = 0.0
    step = WRITTEN_AT_ONCE * WRITERS
    for start in range(0, prompts, step):
        ends = range(start, min(start + step, prompts), WRITTEN_AT_ONCE)
        parts = [records(one, min(one + WRITTEN_AT_ONCE, prompts), chance) for one in ends]
        began = time.perf_counter()
        await asyncio.gather(*map(store.put_many, parts))
        spent += time.perf_counter() - began
    await store.put_many({policy_key(POLICY): encode_state(PolicyState(None, False, 1, prompts, "0" * 16))})
    return spent


def asked(prompts: int) -> Iterator[list[RowsKey]]:
    """The prompts of each look-up."""
    chance = np.random.default_rng(1)
    for _ in range(LOOK_UPS):
        yield [key(index) for index in chance.integers(prompts, size=AT_ONCE).tolist()]


async def look_ups(ask: Callable[[list[RowsKey]], Awaitable[Any]], prompts: int) -> dict[str, float]:
    """How long one look-up after the other takes, in ms."""
    seconds = []
    for keys in asked(prompts):
        began = time.perf_counter()
        await ask(keys)
        seconds.append(time.perf_counter() - began)
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return {"p50_ms": round(1e3 * p50, 2), "p99_ms": round(1e3 * p99, 2)}


async def all_look_ups(store: Store, prompts: int) -> dict[str, Any]:
    """Look-ups of the store alone, through baselines that have nothing in memory, and through some that have all."""
    cold, warm = Baselines(store, cache_bytes=1), Baselines(store)
    same = [key(index) for index in range(AT_ONCE)]
    await warm.look_up(rows=same)

    async def present(keys: list[RowsKey]) -> None:
        assert len((await cold.look_up(rows=keys)).rows) == len(set(keys))

    return {
        "store_alone": await look_ups(lambda keys: store.get_many([one.store_key for one in keys]), prompts),
        "baselines_from_the_store": await look_ups(present, prompts),
        "baselines_from_memory": await look_ups(lambda _: warm.look_up(rows=same), prompts),
    }


async def in_redis(url: str, server: Redis, prompts: int) -> dict[str, Any]:
    """Memory and look-ups in Redis."""
    store = open_store(url)
    empty = used(server)
    seconds = await written(store, prompts)
    full = used(server)
    index = server.memory_usage("{rw}", samples=0)
    assert index is not None
    server.config_resetstat()
    found = await all_look_ups(store, prompts)
    commands: Mapping[str, Mapping[str, Any]] = server.info("commandstats")
    await store.close()
    return {
        "server": server.info("server")["redis_version"],
        "prompts": prompts,
        "bytes_per_prompt": round((full - empty) / prompts),
        "of_these_the_index": round(index / prompts),
        "of_these_the_record": len(next(iter(records(0, 1, np.random.default_rng(0)).values()))),
        "written_per_second": round(prompts / seconds),
        "look_ups_of_256": found,
        "look_ups": 3 * LOOK_UPS + 1,
        "commands": {name.removeprefix("cmdstat_"): one["calls"] for name, one in commands.items() if "mget" in name},
    }


async def in_sqlite(folder: Path, prompts: int) -> dict[str, Any]:
    """The file's size and look-ups in SQLite."""
    path = folder / "store.db"
    store = open_store(f"sqlite:///{path}")
    seconds = await written(store, prompts)
    found = await all_look_ups(store, prompts)
    await store.close()
    return {
        "prompts": prompts,
        "bytes_per_prompt": round(path.stat().st_size / prompts),
        "written_per_second": round(prompts / seconds),
        "look_ups_of_256": found,
    }


def used(server: Redis) -> int:
    """Bytes that the server has allocated."""
    return int(server.info("memory")["used_memory"])


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[str, Redis]]:
    """A server that keeps everything in memory, until the end of the block."""
    assert shutil.which("redis-server"), "needs redis-server"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([*line, "--logfile", str(folder / "redis.log")])
    client = Redis(port=port)
    try:
        wait_for(client)
        yield f"redis://127.0.0.1:{port}", client
    finally:
        client.close()
        process.kill()
        process.wait()


def wait_for(client: Redis) -> None:
    """Return when the server answers."""
    while True:
        try:
            client.ping()
            return
        except NotListening:
            time.sleep(0.05)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--sqlite-prompts", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as (url, server):
        redis = asyncio.run(in_redis(url, server, arguments.prompts))
        sqlite = asyncio.run(in_sqlite(Path(folder), arguments.sqlite_prompts))
    result = {"machine": described(), "references": REFERENCES, "labels": 1, "redis": redis, "sqlite": sqlite}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
