"""Real replicas on one store are killed hard under 64 ranks: no conversation is lost, doubled or scored otherwise.

The figures are small here and full-size in tests/endurance.
"""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reward_service.client import AsyncClient, Client
from tests.ports import HeldPort
from tests.process import ServiceProcess, demo_toml
from tests.redis_server import RedisServer

CONVERSATIONS = 1024
RANKS = 64
GROUP = 4
GAP_S = 3.0
LOG_EVERY_S = 1.0
TEXT = "the a cake sinks when oven door opens early because steam leaves and batter is wet cold or over mixed"
Rewards = dict[str, float]
Groups = list[list[dict[str, Any]]]
Disturb = Callable[[], Awaitable[None]]


class Replica:
    """A service on a port and a store of its own choice, that can be killed and started again."""

    def __init__(self, folder: Path, store: str) -> None:
        folder.mkdir()
        self._config = demo_toml(folder)
        self._port = HeldPort()
        port = self._port.number
        text = self._config.read_text()
        text = text.replace("port = 0", f"port = {port}").replace(f"sqlite:///{folder}/store.db", store)
        centered = 'transform = "log_sigmoid_centered"\nbaseline = { policy = "sft", min_references = 4 }'
        text = text.replace('transform = "log_sigmoid"', centered)
        self._config.write_text(text.replace('dtype = "float32"', 'dtype = "float32"\nparity = "self"'))
        self._running = ExitStack()
        self.url = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = self._running.enter_context(ServiceProcess(self._config))

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.ended_by(signal.SIGKILL)

    def close(self) -> None:
        """End it in good order, if it runs."""
        self._running.close()
        self._port.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server that no other module has written to."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas on one Redis. What a test kills of the second stays dead; the first is there for each."""
    root = tmp_path_factory.mktemp("replicas")
    replicas = Replica(root / "a", redis.url), Replica(root / "b", redis.url)
    with ThreadPoolExecutor() as threads:
        list(threads.map(Replica.start, replicas))
    yield replicas
    for replica in replicas:
        replica.close()


@pytest.fixture(scope="module")
def groups(pair: tuple[Replica, Replica]) -> Groups:
    """Conversations in groups of one prompt, whose baselines are stored."""
    words = random.Random(7)
    groups = [
        [
            {
                "id": f"{i}-{j}",
                "group": str(i),
                "prompt": f"Question {i}?",
                "response": " ".join(words.choices(TEXT.split(), k=20)),
            }
            for j in range(GROUP)
        ]
        for i in range(CONVERSATIONS // GROUP)
    ]
    entries = [{"prompt": group[0]["prompt"], "rewards": [0.1 * k for k in range(8)]} for group in groups]
    with Client(pair[0].url) as client:
        for model in ("helpful", "harmless"):
            for start in range(0, len(entries), 1000):
                client.put_baselines(model, "sft", entries[start : start + 1000])
    return groups


async def run(urls: list[str], groups: Groups, disturb: Disturb | None = None) -> Rewards:
    """The rewards that the ranks get, each by a client of its own; `disturb` runs once, when half of them are there."""
    rewards: Rewards = {}
    half_way = asyncio.Event()

    async def rank(number: int) -> None:
        async with AsyncClient(urls, log_every_s=LOG_EVERY_S) as client:
            for group in groups[number::RANKS]:
                answer = await client.score(group, cache=False)
                for score in answer.scores:
                    assert score.id is not None
                    assert score.id not in rewards
                    assert score.reward is not None
                    rewards[score.id] = score.reward
                if len(rewards) >= len(groups) * GROUP / 2:
                    half_way.set()

    async def disturbance() -> None:
        await half_way.wait()
        if disturb is not None:
            await disturb()

    await asyncio.gather(disturbance(), *(rank(i) for i in range(RANKS)))
    return rewards


@pytest.fixture(scope="module")
def undisturbed(pair: tuple[Replica, Replica], groups: Groups) -> Rewards:
    """The rewards when nothing happens."""
    return asyncio.run(run([pair[0].url], groups))


def check(rewards: Rewards, undisturbed: Rewards, groups: Groups) -> None:
    """Every conversation once, and with the reward of the run that nothing happened to."""
    asked = {conversation["id"] for group in groups for conversation in group}
    assert rewards.keys() == undisturbed.keys() == asked
    assert max(abs(rewards[one] - undisturbed[one]) for one in asked) < 1e-4
    assert len(set(rewards.values())) > len(asked) / 2


async def test_one_of_two_replicas_is_killed(
    pair: tuple[Replica, Replica], groups: Groups, undisturbed: Rewards
) -> None:
    urls = [replica.url for replica in pair]
    rewards = await run(urls, groups, lambda: asyncio.to_thread(pair[1].kill))
    check(rewards, undisturbed, groups)


async def test_the_only_replica_is_gone_for_a_while(
    pair: tuple[Replica, Replica],
    groups: Groups,
    undisturbed: Rewards,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica = pair[0]
    gone_s = 0.0

    async def go_and_come_back() -> None:
        nonlocal gone_s
        started = time.monotonic()
        await asyncio.to_thread(replica.kill)
        await asyncio.sleep(GAP_S)
        await asyncio.to_thread(replica.start)
        gone_s = time.monotonic() - started

    with caplog.at_level(logging.WARNING, "reward_service.client"):
        rewards = await run([replica.url], groups, go_and_come_back)
    check(rewards, undisturbed, groups)
    said = [record.getMessage() for record in caplog.records if record.name == "reward_service.client"]
    waits = [line for line in said if line.startswith("waiting") and replica.url in line]
    assert len(waits) >= RANKS * (gone_s // LOG_EVERY_S - 1) / 2
    assert any("ConnectError" in line for line in waits)
