"""AReaL: its reward function in its process pool, with its timeout that becomes 0."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from reward_service.client import ScoringFailed, Unavailable
from reward_service.client.trainers.areal import RewardFn, reward_fn
from tests.client.scripted import LATER, Replica, item_error, problem, served
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward

PROMPT = f"<|im_start|>user\n{GIRAFFE}<|im_end|>\n<|im_start|>assistant\n"
MESSAGES = [{"role": "user", "content": GIRAFFE}]


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    """One worker, as a machine with many GPUs has for each."""
    with ProcessPoolExecutor(1) as pool:
        yield pool


async def wrapped(pool: ProcessPoolExecutor, function: Any, *args: Any, timeout_s: float = 15.0, **data: Any) -> Any:
    """As `AsyncRewardWrapper.__call__`: four tries, and 0 for a last one that is late."""
    for attempt in range(4):
        call = asyncio.get_running_loop().run_in_executor(pool, partial(function, *args, **data))
        try:
            return await asyncio.wait_for(call, timeout_s)
        except TimeoutError:
            if attempt == 3:
                return 0
        except Exception:
            if attempt == 3:
                raise
    return None


async def test_workers_give_the_services_numbers(pool: ProcessPoolExecutor, service_url: str, reward: Reward) -> None:
    calls = [
        wrapped(pool, reward_fn, PROMPT, answer + "<|im_end|>", [1], [2], messages=MESSAGES, answer="5.5", level=3)
        for answer in ANSWERS
    ]
    assert await asyncio.gather(*calls) == [reward(GIRAFFE, answer) for answer in ANSWERS]


async def test_without_messages_the_decoded_prompt_is_read(service_url: str, reward: Reward) -> None:
    assert RewardFn(url=service_url)(PROMPT, "Very.<|im_end|>", [1], [2]) == reward(GIRAFFE, "Very.")
    assert RewardFn(url=service_url)(PROMPT, "Ver", [1], [2]) == reward(GIRAFFE, "Ver", finish_reason="length")


async def test_an_outage_fails_every_call_in_the_queue_and_makes_no_zero(pool: ProcessPoolExecutor) -> None:
    """Each would wait for 2 s behind the others: the last for 16 s, more than twice its timeout."""
    function = RewardFn(url=NOBODY, deadline_s=2.0)
    calls = [wrapped(pool, function, PROMPT, "Very.", [1], [2], timeout_s=7.0) for _ in range(8)]
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable] * 8


def test_a_service_that_fails_every_conversation_is_an_outage_too() -> None:
    """Such a call takes all its time, as one that nobody answers."""
    replica, sent = Replica(items={"": [item_error(503, "store_unavailable")] * 99}), 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        return replica(request) if sent < 3 else problem(503, "not_ready", LATER)

    with served(answer) as url:
        function = RewardFn(url=url)
        for _ in range(4):
            with pytest.raises(ScoringFailed, match="store_unavailable"):
                function(PROMPT, "Very.<|im_end|>", [1], [2])
    assert sent == 3


@pytest.mark.parametrize("value", ["none", -1.0])
def test_whatever_is_no_exception_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"on_failure: .*AReaL would make it 0; valid: 'raise'"):
        RewardFn(on_failure=value)
