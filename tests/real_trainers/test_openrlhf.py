"""OpenRLHF's own executor of single-turn rollouts, over a generation engine that writes what it is told."""

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.process import ServiceProcess
from tests.real_trainers.conftest import OBJECTIVE, Reward, with_key
from tests.real_trainers.recording import Recorder
from tests.real_trainers.trainers import needs

pytestmark = needs("openrlhf")

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How tall is a giraffe? 🦒"}]
END = "<|im_end|>"
TERMS = {"helpful/raw", "helpful/transformed", "harmless/raw", "harmless/transformed"}
RESPONSES = [
    ("About five metres. 🦒" + END, "About five metres. 🦒", "stop"),
    ("<think>\nTall.\n</think>\n\nFive metres." + END, "<think>\nTall.\n</think>\n\nFive metres.", "stop"),
    ("About five met", "About five met", "length"),
]


class Engine:
    """Writes the same response to every prompt."""

    def __init__(self, tokenizer: Any, text: str, finish_reason: str) -> None:
        self._tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        self._written = {"text": text, "finish_reason": finish_reason, "logprobs": None}

    async def generate(self, prompt: list[int], sampling: object, multi_modal_data: object) -> SimpleNamespace:
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=self._tokens, **self._written)])


async def rollout(remote_url: str | list[str], text: str, finish_reason: str, *, most_tokens: int = 1024) -> Any:
    """What OpenRLHF hands on to its trainer for one prompt."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    from tests.trainers.policy import byte_tokenizer

    tokenizer = byte_tokenizer()
    prompt = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    sampling = SimpleNamespace(max_tokens=20, logprobs=None)
    engine = Engine(tokenizer, text, finish_reason)
    return await SingleTurnAgentExecutor(remote_url).execute(prompt, "5 m", sampling, most_tokens, tokenizer, engine)


def number(value: Any) -> float:
    """A list of one, or a tensor of one: OpenRLHF makes a tensor of either."""
    import torch

    return float(torch.tensor([value]) if not isinstance(value, torch.Tensor) else value.flatten()[0])


def reward_file(folder: Path) -> str:
    """What `--reward.remote_url` names instead of a URL."""
    file = folder / "reward.py"
    file.write_text("from reward_service.client.trainers.openrlhf import reward_func  # noqa: F401\n")
    return str(file)


def generator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What makes experiences of rollouts; its module asks for vLLM, which it needs to generate and not for this."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=None))
    monkeypatch.setitem(sys.modules, "openrlhf.trainer.ray", ModuleType("openrlhf.trainer.ray"))
    engine = SimpleNamespace(batch_vllm_engine_call=None)
    monkeypatch.setitem(sys.modules, "openrlhf.trainer.ray.vllm_engine", engine)
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    return SamplesGenerator.__new__(SamplesGenerator)._process_response_into_experience


@pytest.mark.parametrize(("text", "response", "finish_reason"), RESPONSES)
async def test_a_url_gives_the_reward_of_the_conversation(
    service: ServiceProcess, reward: Reward, text: str, response: str, finish_reason: str
) -> None:
    output = await rollout(f"{with_key(service.url)}/openrlhf/{OBJECTIVE}/get_reward", text, finish_reason)
    assert number(output["reward"]) == pytest.approx(reward(MESSAGES, response, finish_reason=finish_reason), abs=1e-6)
    assert 0 <= number(output["scores"]) <= 1
    assert {number(value) for value in output["extra_logs"].values()}


@pytest.mark.parametrize(("text", "response", "finish_reason"), RESPONSES)
async def test_a_file_with_the_function_gives_it_too(
    service_url: str, reward: Reward, tmp_path: Path, text: str, response: str, finish_reason: str
) -> None:
    output = await rollout(reward_file(tmp_path), text, finish_reason)
    assert number(output["reward"]) == pytest.approx(reward(MESSAGES, response, finish_reason=finish_reason), abs=1e-6)


async def test_its_generator_makes_an_experience_of_each_form(
    service_url: str, reward: Reward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reward(MESSAGES, "Five metres.")
    experience_of = generator(monkeypatch)
    for form in (f"{with_key(service_url)}/openrlhf/{OBJECTIVE}/get_reward", reward_file(tmp_path)):
        experience = experience_of(await rollout(form, "Five metres." + END, "stop"), max_len=1024)
        assert experience.rewards.flatten().tolist() == pytest.approx([expected], abs=1e-6)
        assert 0 <= experience.scores[0].item() <= 1
        assert set(experience.info) >= TERMS
        assert all(experience.info[name].numel() == 1 for name in TERMS)


async def test_several_urls_share_the_rollouts(service: ServiceProcess, recorder: Recorder, reward: Reward) -> None:
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    urls = [f"{with_key(server)}/openrlhf/{OBJECTIVE}/get_reward" for server in (recorder.url, service.url)]
    executor = SingleTurnAgentExecutor(urls)
    question = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    queries = [f"{question}Hello {i}.{END}" for i in range(5)]
    shards = await executor._fetch_rewards_via_http(queries, [question] * 5, [None] * 5)
    rewards = [one for shard in shards for one in shard["rewards"]]
    assert rewards == pytest.approx([reward("Hi", f"Hello {i}.") for i in range(5)], abs=1e-9)
    (exchange,) = recorder.exchanges
    assert exchange.request["query"] == queries[:3]


async def test_a_failure_leaves_the_reward_empty_and_is_no_number(recorder: Recorder) -> None:
    unknown, cut = await asyncio.gather(
        rollout(f"{with_key(recorder.url)}/openrlhf/neither/get_reward", "Tall." + END, "stop"),
        rollout(f"{with_key(recorder.url)}/openrlhf/{OBJECTIVE}/get_reward", "Tall." + END, "stop", most_tokens=50),
    )
    for output in (unknown, cut):
        assert (output["reward"], output["scores"], output["extra_logs"]) == (None, None, {})
    assert {exchange.status for exchange in recorder.exchanges} == {404, 422}
