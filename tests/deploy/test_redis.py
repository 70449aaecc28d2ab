"""The Redis of the deployment, with its own file and little memory: what expires makes room for baselines."""

import re
from pathlib import Path

from reward_service.stores import open_store
from tests.deploy.reading import DEPLOY
from tests.redis_server import RedisServer

MAXMEMORY = "8mb"
ROWS = {f"rows/{i}": bytes(1000) for i in range(500)}


async def test_kept_scores_never_keep_baselines_out_and_no_baseline_is_dropped(tmp_path: Path) -> None:
    text, count = re.subn(r"(?m)^maxmemory .*$", f"maxmemory {MAXMEMORY}", (DEPLOY / "redis.conf").read_text("utf-8"))
    assert count == 1
    options = [word for line in text.splitlines() if line[:1] != "#" for word in option(line)]
    with RedisServer(tmp_path, options) as server:
        store = open_store(server.url, timeout_s=60)
        await store.put_many(ROWS)
        for page in range(100):
            await store.put_many({f"score/{page}/{i}": bytes(100) for i in range(500)}, ttl_s=86_400)
        assert server.command("INFO", "stats")["evicted_keys"] > 0
        await store.update(["rows/0", "rows/new"], lambda _: [b"changed", b"new"])
        assert dict(await store.scan("rows/")) == {**ROWS, "rows/0": b"changed", "rows/new": b"new"}
        await store.close()


def option(line: str) -> list[str]:
    """A line of the file as an option of the command line."""
    name, value = line.split(" ", 1)
    return [f"--{name}", value.replace('""', "")]
