"""Several servers of one model, and what is done when one of them fails, is full or serves another model."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from reward_service.engine.engine import Engine, Estimate, Item, ItemError, Priority
from reward_service.errors import DeadlineExceeded, EngineFailed, InvalidRequest, NotReady
from tests.engine.fakes import until
from tests.engine.serving import HELLO, outputs, results, serving
from tests.hosted.conftest import Build
from tests.hosted.serving import Host, listening, vllm_app
from tests.ports import HeldPort

ITEMS = [Item(text=f"This is text number {n}, " + "with words " * (n % 7)) for n in range(64)]


@asynccontextmanager
async def hosted(*hosts: Host, **options: Any) -> AsyncIterator[Engine]:
    """An engine over a server of each host."""
    with ExitStack() as stack:
        urls = [stack.enter_context(listening(vllm_app(host))) for host in hosts]
        async with serving(
            hosts[0].folder, engine="http", protocol="vllm", urls=urls, **{"parity": "self", **options}
        ) as engine:
            for host in hosts:
                host.calls.clear()
            yield engine


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward_service.engine.hosted.fleet.CHECK_S", 0.1)


async def test_servers_share_the_work(folder: Build) -> None:
    hosts = [Host(folder("bos"), delay_s=0.04), Host(folder("bos"), delay_s=0.04)]
    async with hosted(*hosts) as engine:
        found = await results(engine, ITEMS * 2)
    assert all(isinstance(one, Estimate) for one in found)
    assert [len(host.calls) > 0 for host in hosts] == [True, True]


async def test_a_server_that_breaks_gives_its_work_to_another_and_comes_back(
    folder: Build, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Host(folder("bos")), Host(folder("bos"))
    async with hosted(first, second) as engine:
        expected = await outputs(engine, *ITEMS)
        first.breaks, first.healthy = True, False
        np.testing.assert_allclose(await outputs(engine, *ITEMS), expected, atol=1e-5)
        assert engine.failure is None
        await until(lambda: first.unwell > 1)  # by then it is out of service, or its next check puts it out
        first.breaks, first.healthy = False, True
        await until(lambda: "is back in service" in caplog.text)
        second.breaks, second.healthy = True, False
        first.calls.clear()
        np.testing.assert_allclose(await outputs(engine, *ITEMS), expected, atol=1e-5)
        assert first.calls


async def test_without_any_server_items_are_errors_and_the_model_is_out_of_order(folder: Build) -> None:
    host = Host(folder("bos"))
    async with hosted(host) as engine:
        host.breaks, host.healthy = True, False
        (failed,) = await results(engine, [HELLO])
        assert isinstance(failed, ItemError)
        assert isinstance(failed.error, EngineFailed)
        await until(lambda: engine.failure is not None)
        assert "/health answered 500" in str(engine.failure)
        host.breaks, host.healthy = False, True
        await until(lambda: engine.failure is None)
        assert isinstance((await results(engine, [HELLO]))[0], Estimate)


async def test_a_server_that_goes_away_is_no_score(folder: Build) -> None:
    host = Host(folder("bos"))
    with HeldPort() as held, ExitStack() as stack:
        port = held.number
        url = f"http://127.0.0.1:{port}"
        stack.enter_context(listening(vllm_app(host), port))
        async with serving(host.folder, engine="http", protocol="vllm", urls=[url]) as engine:
            stack.close()
            (failed,) = await results(engine, [HELLO])
            assert isinstance(failed, ItemError)
            assert isinstance(failed.error, EngineFailed)
            with listening(vllm_app(host), port):
                await until(lambda: engine.failure is None)
                assert isinstance((await results(engine, [HELLO]))[0], Estimate)


async def test_a_server_of_another_model_is_not_used(folder: Build, caplog: pytest.LogCaptureFixture) -> None:
    ours, other = Host(folder("bos")), Host(folder("bos", seed=7))
    with caplog.at_level(logging.WARNING):
        async with hosted(ours, other) as engine:
            assert len(await outputs(engine, *ITEMS)) == len(ITEMS)
    assert other.calls == []
    assert "it serves another model than the first server" in caplog.text


async def test_a_server_that_comes_back_with_another_model_is_not_used(
    folder: Build, caplog: pytest.LogCaptureFixture
) -> None:
    ours, swapped = Host(folder("bos")), Host(folder("bos"))
    async with hosted(ours, swapped) as engine:
        swapped.healthy = False
        await until(lambda: "/health answered 500" in caplog.text)
        swapped.model = Host(folder("bos", seed=7)).model
        swapped.healthy = True
        await until(lambda: "serves another model" in caplog.text)
        ours.calls.clear()
        swapped.calls.clear()
        await results(engine, ITEMS)
        assert swapped.calls == []


async def test_a_full_server_gets_smaller_calls_and_nothing_is_lost(folder: Build) -> None:
    host = Host(folder("bos"), room=4)
    async with hosted(host) as engine:
        found = await results(engine, ITEMS)
    assert all(isinstance(one, Estimate) for one in found)
    assert max(len(call["input"]) for call in host.calls) > 4


async def test_an_item_that_the_server_refuses_stands_beside_its_neighbours(folder: Build) -> None:
    host = Host(folder("bos"), tells_limit=False)
    async with hosted(host) as engine:
        expected = await outputs(engine, *ITEMS[:20])
        host.limit = 100
        found = await results(engine, [*ITEMS[:10], Item(text="word " * 300), *ITEMS[10:20]])
    bad = found.pop(10)
    assert isinstance(bad, ItemError)
    assert isinstance(bad.error, InvalidRequest)
    assert "the model reads 100" in bad.error.detail
    rest = np.array([one.outputs for one in found if isinstance(one, Estimate)])
    np.testing.assert_allclose(rest, expected, atol=1e-5)


async def test_what_a_server_says_it_reads_is_what_the_model_reads(folder: Build) -> None:
    async with hosted(Host(folder("bos"), limit=900)) as engine:
        assert engine.card.max_tokens == 900


async def test_tokens_that_are_miscounted_later_are_an_error(folder: Build) -> None:
    host = Host(folder("bos"))
    async with hosted(host) as engine:
        host.adds_bos = True
        (failed,) = await results(engine, [HELLO])
    assert isinstance(failed, ItemError)
    assert "tokens where" in failed.error.detail


async def test_a_cancelled_request_closes_its_calls(folder: Build) -> None:
    host = Host(folder("bos"))
    async with hosted(host) as engine:
        host.delay_s = 20
        task = asyncio.create_task(results(engine, [HELLO]))
        await until(lambda: len(host.calls) > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: host.gone > 0)


async def test_the_deadline_is_an_error(folder: Build) -> None:
    host = Host(folder("bos"))
    async with hosted(host) as engine:
        host.delay_s = 20
        deadline = time.monotonic() + 0.3
        (late,) = await engine.score([HELLO], priority=Priority.ROLLOUT, deadline=deadline)
        assert isinstance(late, ItemError)
        assert isinstance(late.error, DeadlineExceeded)


async def test_rollouts_go_before_jobs_and_their_priority_is_sent(folder: Build) -> None:
    host = Host(folder("bos"))
    async with hosted(host) as engine:
        deadline = time.monotonic() + 60
        await engine.score([HELLO], priority=Priority.JOB, deadline=deadline)
        await engine.score([HELLO], priority=Priority.ROLLOUT, deadline=deadline)
    assert [call["priority"] for call in host.calls] == [1, 0]


async def test_the_fingerprint_outlives_a_restart_and_names_the_weights(folder: Build) -> None:
    seen = []
    for seed in (0, 0, 7):
        async with hosted(Host(folder("bos", seed=seed))) as engine:
            seen.append(engine.card.fingerprint.value)
    assert seen[0] == seen[1] != seen[2]


async def test_the_api_key_comes_from_the_environment(folder: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_KEY", "secret")
    async with hosted(Host(folder("bos"), key="secret"), api_key_env="REWARD_KEY") as engine:
        assert isinstance((await results(engine, [HELLO]))[0], Estimate)
    monkeypatch.delenv("REWARD_KEY")
    with pytest.raises(NotReady, match="api_key_env: REWARD_KEY is not set"):
        async with hosted(Host(folder("bos"), key="secret"), api_key_env="REWARD_KEY"):
            pass


async def test_a_key_that_is_not_accepted_stops_the_start(folder: Build) -> None:
    with pytest.raises(NotReady, match="answered 401: Unauthorized"):
        async with hosted(Host(folder("bos"), key="secret")):
            pass


async def test_no_server_at_all_stops_the_start(folder: Build) -> None:
    with HeldPort() as held:
        url = f"http://127.0.0.1:{held.number}"
        with pytest.raises(NotReady, match=f"no server can be used: {url}: /health: ConnectError"):
            async with serving(folder("bos"), engine="http", protocol="vllm", urls=[url]):
                pass


async def test_before_start_and_after_close_it_is_not_ready(folder: Build) -> None:
    async with hosted(Host(folder("bos"))) as engine:
        await engine.close()
        assert engine.failure == "model 'm' is not loaded"
        with pytest.raises(NotReady):
            await results(engine, [HELLO])


async def test_a_number_for_unfinished_responses_needs_no_server(folder: Build) -> None:
    host = Host(folder("bos"))
    async with hosted(host, on_unfinished=-4.5) as engine:
        (fixed,) = await results(engine, [Item(messages=HELLO.messages, finish_reason="length")])
    assert isinstance(fixed, Estimate)
    assert fixed.outputs.tolist() == [-4.5]
    assert host.calls == []
