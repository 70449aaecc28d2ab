"""More than the service can take, for some seconds; `tests/endurance` has the same for minutes."""

import asyncio
import random
import statistics
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from tests.backlog import backlog
from tests.overload import Texts, arrivals, patient_callers, queued_tokens, service_toml
from tests.process import ServiceProcess
from tests.soak import soak

TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service with room for few tokens."""
    config = service_toml(tmp_path_factory.mktemp("overload"), max_queued_tokens=8192, request_timeout_s=600)
    with ServiceProcess(config) as service:
        yield service


async def test_large_requests_against_a_tiny_budget_all_finish_in_turn(service: ServiceProcess) -> None:
    seen = await backlog(service, conversations=200, words=30, rounds=1)
    assert all(one.status == 200 and None not in one.rewards for one in seen.visits), seen.summary()
    assert seen.longest_to_median < 3, seen.summary()
    assert len(seen.ratios) >= 2, seen.summary()
    assert 1 / 3 <= statistics.median(seen.ratios) <= 3, seen.summary()
    assert seen.queued_after == 0


async def test_at_twice_its_capacity_what_is_accepted_is_answered_in_time(service: ServiceProcess) -> None:
    seen = await soak(service, timeout_s=TIMEOUT_S, warm_s=2, seconds=6, returning=0.5)
    assert {one.status for one in seen.visits} == {200, 429}, seen.summary()
    assert all(None not in one.rewards for one in seen.accepted)
    assert len(seen.accepted) > 0.25 * len(seen.visits), seen.summary()
    assert max(seen.latencies_s) < TIMEOUT_S, seen.summary()
    assert seen.queued_after == 0


async def test_large_and_small_requests_of_one_and_two_models_get_on_side_by_side(service: ServiceProcess) -> None:
    texts = Texts(30)
    large = [[texts.request(300, objective, cache=False)] for objective in ("one", "both", "both")]
    bulk = asyncio.create_task(patient_callers(service.url, large))
    small = await arrivals(service.url, partial(texts.request, 1, cache=False), per_s=5, seconds=2, returning=1.0)
    visits = [one for of_caller in await bulk for one in of_caller]
    assert {one.status for one in [*small, *visits]} == {200}
    beside = [one.total_s for one in small if one.began < min(one.ended for one in visits)]
    assert statistics.median(beside) < min(one.total_s for one in visits)


@pytest.mark.parametrize("objective", ["one", "both"])
async def test_callers_that_hang_up_under_load_give_their_room_back(service: ServiceProcess, objective: str) -> None:
    texts, chance = Texts(30), random.Random(0)

    async def left(after_s: float) -> bool:
        """Whether the caller lost its patience before the answer (it may also have been told to come back)."""
        async with httpx.AsyncClient(base_url=service.url, timeout=after_s) as http:
            try:
                await http.post("/v1/score", json=texts.request(1024, objective, cache=False))
            except httpx.TimeoutException:
                return True
        return False

    staying = asyncio.create_task(patient_callers(service.url, [[texts.request(64, objective, cache=False)]] * 2))
    gone = await asyncio.gather(*(left(chance.uniform(0.1, 0.5)) for _ in range(6)))
    visits = [one for of_caller in await staying for one in of_caller]
    assert any(gone)
    assert {one.status for one in visits} == {200}
    assert await queued_tokens(service.url) == 0
