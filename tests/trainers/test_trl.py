"""TRL's reward functions, called as its trainers call them."""

import asyncio
import functools
import inspect
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import httpx
import pytest

from reward_service.client import Client, ExpectationFailed, ScoringFailed
from reward_service.client.trainers.trl import reward_func, reward_functions, sync_reward_func, term_functions
from tests.client.scripted import LATER, problem, served
from tests.trainers.conftest import ANSWERS, GIRAFFE, NOBODY, Reward

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": GIRAFFE}]
EOS, PAD = 1, 0
CALL = {"type": "function", "function": {"name": "height", "arguments": {"animal": "giraffe"}}}
CHATML = f"<|im_start|>user\n{GIRAFFE}<|im_end|>\n<|im_start|>assistant\n"


def batch(prompt: Any = GIRAFFE, **columns: Any) -> dict[str, Any]:
    """A prompt with all answers, as GRPOTrainer hands them over."""
    is_plain = isinstance(prompt, str)
    return {
        "prompts": [prompt] * len(ANSWERS),
        "completions": [one if is_plain else [{"role": "assistant", "content": one}] for one in ANSWERS],
        "completion_ids": [[5, EOS] for _ in ANSWERS],
        "trainer_state": object(),
        "environments": None,
        **columns,
    }


class Relay:
    """Hands requests on to the service and remembers them; answers 503 while it is away."""

    def __init__(self, service_url: str) -> None:
        self.url = ""
        self.sent: list[dict[str, Any]] = []
        self.is_away = False
        self._service_url = service_url

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            return problem(503, "not_ready", LATER)
        self.sent.append(json.loads(request.content))
        answer = httpx.post(f"{self._service_url}{request.url.path}", json=self.sent[-1], timeout=60)
        return httpx.Response(answer.status_code, json=answer.json())


@pytest.fixture
def relay(service_url: str) -> Iterator[Relay]:
    relay = Relay(service_url)
    with served(relay) as relay.url:
        yield relay


class Log:
    """What TRL passes as `log_metric` and `log_extra`."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.columns: dict[str, list[Any]] = {}

    @property
    def arguments(self) -> dict[str, Callable[..., None]]:
        return {"log_metric": self.metrics.__setitem__, "log_extra": self.columns.__setitem__}


@pytest.mark.parametrize("prompt", [GIRAFFE, MESSAGES], ids=["plain", "conversational"])
async def test_rewards_are_those_of_the_service(service_url: str, reward: Reward, prompt: Any) -> None:
    expected = [reward(prompt, answer) for answer in ANSWERS]
    assert await reward_func(service_url, "both")(**batch(prompt)) == expected
    assert await reward_func()(**batch(prompt)) == expected, "the environment names the service"
    assert await asyncio.to_thread(sync_reward_func(), **batch(prompt)) == expected


def test_trl_sees_a_function_that_is_async_or_not_under_its_own_name() -> None:
    from trl.trainer.utils import get_callable_name, is_async_callable

    one, same, other = (reward_func(NOBODY, "both"), reward_func(NOBODY, "both", name="mine"), reward_func(NOBODY))
    assert [get_callable_name(function) for function in (one, same, other)] == ["both", "mine", "reward_service"]
    assert [function.__name__ for function in (one, same, other)] == ["both", "mine", "reward_service"]
    assert all(map(is_async_callable, (one, same, other)))
    assert all(map(inspect.iscoroutinefunction, (one, same, other))), "which is how older versions ask"
    assert isinstance(one, functools.partial)
    sync = sync_reward_func(NOBODY, "both")
    assert get_callable_name(sync) == "both"
    assert not is_async_callable(sync)


async def test_each_term_is_logged_with_its_mean_and_its_column(service_url: str) -> None:
    log = Log()
    rewards = await reward_func(objective="both", name="mine")(**batch(), **log.arguments)
    names = [f"mine/{term}/{number}" for term in ("helpful", "harmless") for number in ("raw", "transformed")]
    assert list(log.columns) == names
    assert list(log.metrics) == ["mine/missing", *names]
    sums = [sum(transformed) for transformed in zip(log.columns[names[1]], log.columns[names[3]], strict=True)]
    assert sums == pytest.approx(rewards)
    assert log.metrics[names[0]] == pytest.approx(sum(log.columns[names[0]]) / len(ANSWERS))


async def test_a_conversation_that_fails_is_none_or_stops_the_step_and_is_never_a_number(service_url: str) -> None:
    log = Log()
    given = batch(MESSAGES)
    given["completions"][1] = [{"role": "tool", "content": "5.5 m"}]  # cut after a tool call
    rewards = await reward_func(on_failure="none")(**given, **log.arguments)
    assert [one is None for one in rewards] == [False, True, False, False]
    assert log.metrics["reward_service/missing"] == 0.25
    assert log.columns["reward_service/helpful/raw"][1] is None
    with pytest.raises(ScoringFailed, match=r"1 of 4 .*must end in the assistant turn"):
        await reward_func()(**given)


async def test_a_step_without_the_service_logs_the_columns_of_the_steps_before(relay: Relay) -> None:
    function = reward_func(relay.url, on_failure="none")
    before, after = Log(), Log()
    assert None not in await function(**batch(), **before.arguments)
    relay.is_away = True
    assert await function(**batch(), **after.arguments) == [None] * len(ANSWERS)
    assert after.columns == {name: [None] * len(ANSWERS) for name in before.columns}
    assert after.metrics == {"reward_service/missing": 1.0}


async def test_tool_calls_parts_and_fields_that_a_dataset_filled_with_none(service_url: str, reward: Reward) -> None:
    prompt = [{"role": "user", "content": [{"type": "text", "text": GIRAFFE}], "name": None, "tool_calls": None}]
    final = {"role": "assistant", "content": ANSWERS[0], "tool_calls": None}
    (found,) = await reward_func()(prompts=[prompt], completions=[[final]])
    assert found == reward(GIRAFFE, ANSWERS[0])
    image = [{"role": "user", "content": [{"type": "image", "image": object()}]}]
    with pytest.raises(ValueError, match="is no text"):
        await reward_func()(prompts=[image], completions=[[final]])


async def test_tool_calls_columns_ends_and_groups_are_sent(relay: Relay) -> None:
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "name": "height", "content": "5.5 m"},
        {"role": "assistant", "content": ANSWERS[0]},
    ]
    columns = {"ground_truth": ["5.5 m", None, "4"], "other": [1, 2, 3]}
    await reward_func(relay.url, on_failure="none", eos_token_id=[EOS, PAD])(
        prompts=[MESSAGES, MESSAGES, GIRAFFE],
        completions=[turns, [turns[2]], ANSWERS[0]],
        completion_ids=[[5, EOS], [5, 6], [EOS, PAD]],
        **columns,
    )
    sent = relay.sent[0]["conversations"]
    assert sent[0] == {
        "messages": [*MESSAGES, {"role": "assistant", "tool_calls": [CALL]}, *turns[1:]],
        "group": "0",
        "ground_truth": "5.5 m",
        "finish_reason": "stop",
    }
    assert sent[1] == {"messages": [*MESSAGES, turns[2]], "group": "0", "finish_reason": "length"}
    assert sent[2] == {
        "prompt": GIRAFFE,
        "response": ANSWERS[0],
        "group": "1",
        "ground_truth": "4",
        "finish_reason": "stop",
    }


async def test_a_plain_prompt_that_a_template_wrote_is_refused_unless_said(service_url: str, reward: Reward) -> None:
    with pytest.raises(ValueError, match=r"prompts: .*rendered already, by a chatml template; .*input='reparse'"):
        await reward_func()(**batch(CHATML))
    expected = [reward(GIRAFFE, answer) for answer in ANSWERS]
    assert await reward_func(input="reparse")(**batch(CHATML)) == expected
    raw = await reward_func(input="raw")(**batch(CHATML))
    assert None not in raw
    assert raw != expected


async def test_terms_are_functions_over_one_request(relay: Relay, client: Client) -> None:
    functions = term_functions(["helpful", "harmless"], relay.url, "both")
    assert [function.__name__ for function in functions] == ["helpful", "harmless"]
    log, given = Log(), batch()
    helpful, harmless = await asyncio.gather(*(function(**given, **log.arguments) for function in functions))
    assert len(relay.sent) == 1
    answer = client.score([{"prompt": GIRAFFE, "response": one} for one in ANSWERS], "both")
    assert helpful == [score.terms[0].transformed for score in answer.scores]
    assert harmless == [score.terms[1].transformed for score in answer.scores]
    assert "both/missing" in log.metrics
    (again,) = await asyncio.gather(functions[1](**given))
    assert again == harmless
    with pytest.raises(ValueError, match="terms: 'other' is no term of 'both'; valid: helpful, harmless"):
        await term_functions(["other"], relay.url, "both")[0](**given)


async def test_a_conversation_without_a_reward_has_none_of_its_terms(service_url: str) -> None:
    given = batch(MESSAGES)
    given["completions"][0] = [{"role": "tool", "content": "5.5 m"}]
    functions = term_functions(["helpful", "harmless"], on_failure="none")
    for rewards in await asyncio.gather(*(function(**given) for function in functions)):
        assert [one is None for one in rewards] == [True, False, False, False]


async def test_a_conversation_that_lacks_one_term_has_none_or_stops_the_step(watched: str) -> None:
    """TRL would count the missing one as 0, beside the others."""
    terms = ["helpful", "watched"]
    with pytest.raises(ScoringFailed, match="0 references of policy 'nobody'"):
        await term_functions(terms, watched)[0](**batch())
    given = batch()
    for rewards in await asyncio.gather(*(one(**given) for one in term_functions(terms, watched, on_failure="none"))):
        assert rewards == [None] * len(ANSWERS)
    assert None not in await term_functions(["helpful"], watched)[0](**batch())


def test_what_trl_would_count_as_0_is_refused() -> None:
    with pytest.raises(ValueError, match="OnlineDPO counts None as a reward of 0"):
        sync_reward_func(NOBODY, on_failure="none")
    with pytest.raises(ValueError, match="TRL counts None as 0"):
        reward_functions(["a", "b"], NOBODY, on_failure="none")
    with pytest.raises(ValueError, match="no single number can stand for every term"):
        term_functions(["a", "b"], NOBODY, on_failure=-1.0)
    with pytest.raises(ValueError, match="input: 'text'; valid:"):
        reward_func(NOBODY, input="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eos_token_id: '</s>'; valid: the id of a token"):
        reward_func(NOBODY, eos_token_id="</s>")  # type: ignore[arg-type]


def test_functions_go_to_a_spawned_process_and_know_what_the_run_is_pinned_to(service_url: str, reward: Reward) -> None:
    expected = [reward(GIRAFFE, answer) for answer in ANSWERS]
    function = sync_reward_func(service_url, "both")
    given = {name: value for name, value in batch().items() if name != "trainer_state"}
    assert function(**given) == expected
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(function, **given).result(120) == expected
    pinned = function.expectation()
    assert pinned is not None
    assert set(pinned["models"]) == {"helpful", "harmless"}
    other = {**pinned, "objective_hash": "sha256:other"}
    with pytest.raises(ExpectationFailed, match="objective_hash"):
        sync_reward_func(service_url, "both", expect=other)(**given)
