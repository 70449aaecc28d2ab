"""ms-swift: a reward class, made and awaited as `compute_rewards_per_func` does."""

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest

from reward_service.client import Client, ScoringFailed, Unavailable
from reward_service.client.trainers.ms_swift import register
from reward_service.client.trainers.ms_swift import reward as reward_class
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward


def batch() -> dict[str, Any]:
    """The keyword arguments that `rows_to_batched` makes of samples; `loss` is a mark of ms-swift's own."""
    return {
        "trainer_state": object(),
        "messages": [
            [{"role": "user", "content": GIRAFFE}, {"role": "assistant", "content": answer, "loss": True}]
            for answer in ANSWERS
        ],
        "finish_reason": ["stop", "length", None, "stop"],
        "is_truncated": [False, True, False, False],
        "solution": ["5.5"] * 4,
    }


def step(function: Any) -> list[float]:
    """A training step: an event loop of its own for all asynchronous rewards."""

    async def awaited() -> Any:
        return await asyncio.gather(function(list(ANSWERS), **batch()))

    assert asyncio.iscoroutinefunction(function.__call__)
    found: list[float] = asyncio.run(awaited())[0]
    return found


def test_every_step_gets_the_services_numbers(
    service_url: str, reward: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = ModuleType("swift.rewards")
    rewards.orms = {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    register("quality", objective="both")
    function = rewards.orms["quality"](args=object())
    ends = [None, "length", None, None]
    expected = [reward(GIRAFFE, one, finish_reason=end) for one, end in zip(ANSWERS, ends, strict=True)]
    assert [step(function) for _ in range(3)] == [expected] * 3
    assert type(function).__name__ == "quality"  # by which ms-swift logs it


def test_a_term_can_be_a_reward_of_its_own(service_url: str, client: Client) -> None:
    asked = [{"messages": turns} for turns in batch()["messages"]]
    for conversation in asked:
        conversation["messages"][1].pop("loss")
    asked[1]["finish_reason"] = "length"
    expected = [score.terms[1].transformed for score in client.score(asked).scores]
    assert step(reward_class("harmless", url=service_url, term="harmless")()) == expected
    with pytest.raises(ValueError, match="terms: 'kind' is no term of 'both'; valid: helpful, harmless"):
        step(reward_class(url=service_url, term="kind")())


def test_a_term_without_a_number_is_an_exception_since_ms_swift_would_make_0_of_it(watched: str) -> None:
    with pytest.raises(ScoringFailed, match=r"4 of 4 .*0 references of policy 'nobody'"):
        step(reward_class(url=watched, term="watched")())
    assert None not in step(reward_class(url=watched)())
    with pytest.raises(ValueError, match=r"on_failure: -1.0, but no single number can stand for every term"):
        reward_class(url=watched, term="watched", on_failure=-1.0)


def test_an_outage_is_an_exception_and_none_is_refused() -> None:
    with pytest.raises(Unavailable):
        step(reward_class(url=NOBODY, deadline_s=0.3)())
    with pytest.raises(ValueError, match="ms-swift counts None as 0"):
        reward_class(on_failure="none")
