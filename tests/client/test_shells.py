"""A client in a trainer: threads, event loops, forks, pickles, cancelled tasks, and no socket left behind."""

import asyncio
import gc
import multiprocessing
import os
import pickle
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reward_service.client import AsyncClient, Client, RequestFailed, Unavailable
from reward_service.client.settings import Settings
from tests.client.scripted import A, B, Kind, Replica, ask, both, conversation, problem, served
from tests.hosted.serving import listening

KEY = "key-of-a-user-7f3a"
ONE = [conversation(1.5)]
SHELLS: dict[Kind, Any] = {"sync": Client, "async": AsyncClient}


@pytest.fixture
def url() -> Iterator[str]:
    with served(Replica()) as url:
        yield url


def leads_to(link: Path) -> str:
    """What an open file of this process is; "" for one that another thread has closed since it was listed."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def sockets() -> int:
    """How many sockets this process has open."""
    return sum(leads_to(link).startswith("socket:") for link in Path("/proc/self/fd").iterdir())


@both
def test_the_key_is_sent_and_never_shown(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica([problem(503, "not_ready")])
    ask(kind, replica, "score", ONE, api_key=KEY)
    assert {request.headers["authorization"] for request in replica.requests} == {f"Bearer {KEY}"}
    shell = SHELLS[kind]
    client = shell([A, B], api_key=KEY)
    with pytest.raises(Unavailable) as failed:
        ask(kind, Replica([problem(503, "not_ready")] * 99), "score", ONE, api_key=KEY, deadline_s=0.3)
    with pytest.raises(RequestFailed) as refused:
        ask(kind, Replica([problem(401, "unauthorized")]), "score", ONE, api_key=KEY)
    with pytest.raises(ValueError, match="api_key: not a key") as invalid:
        shell(A, api_key=f"{KEY}\n")
    shown = [
        repr(client),
        repr(client._settings),
        str(failed.value),
        repr(refused.value),
        str(invalid.value),
        caplog.text,
    ]
    assert not [text for text in shown if KEY in text]
    assert repr(client) == f"{shell.__name__}(http://a:8000, http://b:8000)"


@pytest.mark.parametrize(
    ("urls", "options", "expected"),
    [
        ("localhost:8000", {}, "base_url: 'localhost:8000' is no URL of a service; valid: http://host:port"),
        ([], {}, "base_url: no URL"),
        ([A, A + "/"], {}, "names a service twice"),
        ("http://me:secret@a", {}, "ends up in logs"),
        ("http://me:secret@a:99999", {}, "ends up in logs"),
        ("http://me:secret/1@a", {}, "ends up in logs"),
        ("me:secret@a:8000", {}, "ends up in logs"),
        ("ftp://me:secret@a", {}, "ends up in logs"),
        (A, {"on_failure": "zero"}, "on_failure: 'zero'; valid: 'raise', 'none', or a finite number"),
        (A, {"on_failure": float("nan")}, "on_failure: nan; valid"),
        (A, {"on_failure": True}, "on_failure: True; valid"),
        (A, {"deadline_s": 0}, "deadline_s: 0; valid: a number of seconds over 0"),
        (A, {"max_concurrency": 0.5}, "max_concurrency: 0.5; valid: a whole number from 1 on"),
    ],
)
def test_an_option_that_is_not_valid_is_named(urls: Any, options: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)) as invalid:
        Settings(urls, **options)
    assert "secret" not in str(invalid.value)


class FourAtOnce:
    """A service that answers when four requests are there, and counts how many there ever were."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._four = threading.Barrier(4)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._four.wait(30)
        time.sleep(0.02)  # a fifth would be here by now
        with self._lock:
            self._now -= 1
        return Replica()(request)


def test_threads_share_a_client_and_its_slots() -> None:
    service = FourAtOnce()
    rewards: list[float | None] = []
    with Client(A, transport=httpx.MockTransport(service), max_concurrency=4) as client:

        def rank(number: int) -> None:
            rewards.extend(client.score([conversation(float(number))]).rewards)

        threads = [threading.Thread(target=rank, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(reward for reward in rewards if reward is not None) == [float(i) for i in range(32)]
    assert service.most == 4


@both
def test_parts_of_a_call_go_at_once_as_far_as_there_are_slots(kind: Kind) -> None:
    service = FourAtOnce()
    with served(service) as url:
        asked = [conversation(float(i)) for i in range(8)]
        client = SHELLS[kind](url, max_concurrency=4, max_conversations_per_request=1)
        answer = run(client, lambda: client.score(asked))
    assert answer.rewards == [float(i) for i in range(8)]
    assert service.most == 4


def run(client: Any, call: Any) -> Any:
    """What a call of either client returns; closes it."""
    if isinstance(client, Client):
        with client:
            return call()

    async def ask() -> Any:
        async with client:
            return await call()

    return asyncio.run(ask())


def test_a_client_is_pickled_to_a_worker_and_connects_there(url: str) -> None:
    with Client(url, on_failure="none") as client:
        client.score(ONE)
        with pickle.loads(pickle.dumps(client)) as copy:
            assert copy.score(ONE).rewards == [1.5]
        assert client.score(ONE).rewards == [1.5]

    async def asynchronously() -> list[float | None]:
        async with AsyncClient(url) as here:
            await here.score(ONE)
            async with pickle.loads(pickle.dumps(here)) as copy:
                rewards: list[float | None] = (await copy.score(ONE)).rewards
                return rewards

    assert asyncio.run(asynchronously()) == [1.5]


def rank(client: Client, queue: Any, number: int) -> None:
    for _ in range(20):
        queue.put(client.score([conversation(float(number))]).rewards)
    client.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_client_that_was_used_before_a_fork_connects_anew_in_each_child(url: str) -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    with Client(url) as client:
        client.score(ONE)
        children = [fork.Process(target=rank, args=(client, queue, i)) for i in range(3)]
        for child in children:
            child.start()
        mine = [client.score([conversation(9.0)]).rewards for _ in range(20)]
        theirs = sorted(queue.get(timeout=60) for _ in range(60))
        for child in children:
            child.join(60)
        assert client.score(ONE).rewards == [1.5]
    assert mine == [[9.0]] * 20
    assert theirs == [[float(i)] for i in range(3) for _ in range(20)]
    assert [child.exitcode for child in children] == [0, 0, 0]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_client_goes_from_one_event_loop_to_the_next(url: str) -> None:
    client = AsyncClient(url)
    for _ in range(3):
        assert asyncio.run(client.score(ONE)).rewards == [1.5]
    del client
    gc.collect()  # what the closed loops left open warns here and not in the next test


@both
def test_a_closed_client_says_so(kind: Kind) -> None:
    client = SHELLS[kind](A, transport=httpx.MockTransport(Replica()))
    run(client, lambda: client.models())
    with pytest.raises(RuntimeError, match=r"Client\(http://a:8000\) is closed; make a new one"):
        run(client, lambda: client.models())


@both
def test_no_socket_is_left_behind(kind: Kind, url: str) -> None:
    before = sockets()
    shell = SHELLS[kind]
    for _ in range(3):
        client = shell([url, "http://127.0.0.1:9"], max_conversations_per_request=1)
        run(client, lambda: client.score([conversation(float(i)) for i in range(20)]))  # noqa: B023
    until = time.monotonic() + 10
    while sockets() > before and time.monotonic() < until:
        time.sleep(0.05)  # the server closes its ends
    assert sockets() <= before


async def test_cancelled_calls_free_their_slots(url: str) -> None:
    replica = Replica()

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        return replica(request)

    transport = httpx.MockTransport(answer)
    async with AsyncClient(A, transport=transport, max_concurrency=2, max_conversations_per_request=2) as client:
        for _ in range(20):
            tasks = [asyncio.create_task(client.score(ONE * 4)) for _ in range(8)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        answers = await asyncio.wait_for(asyncio.gather(*(client.score(ONE) for _ in range(8))), 10)
    assert [one.rewards for one in answers] == [[1.5]] * 8


async def test_cancelled_calls_leave_the_connections_usable(url: str) -> None:
    async with AsyncClient(url, max_concurrency=2) as client:
        for _ in range(30):
            tasks = [asyncio.create_task(client.score(ONE)) for _ in range(8)]
            await asyncio.sleep(0.002)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        answers = await asyncio.wait_for(asyncio.gather(*(client.score(ONE) for _ in range(16))), 20)
    assert [one.rewards for one in answers] == [[1.5]] * 16


@both
def test_an_answer_that_drips_for_ever_is_a_failed_try(kind: Kind) -> None:
    with dripping() as url:
        client = SHELLS[kind](url, timeout_s=0.3)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="ReadTimeout"):
            run(client, lambda: client.score(ONE))
    assert time.monotonic() - started < 30


def dripping() -> Any:
    """A server whose first answer takes a minute; the others say to come later."""
    drops = iter([1200])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left = next(drops, 0)
        headers = [] if left else [(b"retry-after", b"900")]
        await send({"type": "http.response.start", "status": 200 if left else 429, "headers": headers})
        for _ in range(left):
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})

    return listening(app)


@both
def test_a_server_that_hangs_is_told_of_while_it_hangs(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "reward_service.client"]

    def hang(request: httpx.Request) -> httpx.Response:
        until = time.monotonic() + 30
        while not said() and time.monotonic() < until:
            time.sleep(0.01)
        return Replica()(request)

    with served(hang) as url:
        client = SHELLS[kind](url, log_every_s=0.2)
        run(client, lambda: client.score(ONE))
    assert f"{url} has not answered yet (x 1)" in said()[0]
