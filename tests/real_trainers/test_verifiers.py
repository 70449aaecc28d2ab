"""verifiers' own scoring of a rollout: a Rubric up to 0.3, a Task from 0.4 on."""

import importlib.util
from typing import Any

import pytest

from tests.real_trainers.conftest import OBJECTIVE, Reward

INSTALLED = importlib.util.find_spec("verifiers") is not None
HAS_RUBRIC = INSTALLED and importlib.util.find_spec("verifiers.legacy") is not None
needs_rubric = pytest.mark.skipif(not HAS_RUBRIC, reason="verifiers 0.3 is not installed here; `make test-trainers`")
needs_task = pytest.mark.skipif(
    not INSTALLED or HAS_RUBRIC, reason="verifiers 0.4 is not installed here; `make test-trainers`"
)

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How tall is a giraffe? 🦒"}]
RESPONSE = "About five metres. 🦒"
TERMS = {"helpful/transformed", "harmless/transformed"}


def state(response: str = RESPONSE) -> Any:
    """A rollout that has come to its end, as a Rubric is handed it."""
    from verifiers.types import State

    return State(
        prompt=PROMPT, completion=[{"role": "assistant", "content": response}], answer="5 m", task="zoo", info={}
    )


@needs_rubric
async def test_a_rubric_gives_a_rollout_the_reward_of_its_conversation(service_url: str, reward: Reward) -> None:
    import verifiers as vf

    from reward_service.client.trainers.verifiers import rubric_reward, rubric_terms

    of_service = {"url": service_url, "objective": OBJECTIVE}
    functions = [rubric_reward(**of_service), *rubric_terms(["helpful", "harmless"], **of_service)]
    rollout = state()
    await vf.Rubric(funcs=functions, weights=[1.0, 0.0, 0.0]).score_rollout(rollout)
    assert rollout["reward"] == pytest.approx(reward(PROMPT, RESPONSE), abs=1e-9)
    assert set(rollout["metrics"]) == {"reward", "helpful", "harmless"}


@needs_rubric
async def test_a_rubric_does_not_make_0_of_a_failure(service_url: str) -> None:
    import verifiers as vf

    from reward_service.client.trainers.verifiers import NoReward, rubric_reward

    rollout = state()
    with pytest.raises(NoReward, match="neither"):
        await vf.Rubric(funcs=[rubric_reward(service_url, "neither")]).score_rollout(rollout)
    assert "reward" not in rollout


def task_and_trace() -> tuple[Any, Any]:
    """A task whose configuration names the reward, and the trace of an agent that has answered it."""
    import verifiers.v1 as vf
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.types import AssistantMessage, SystemMessage, UserMessage

    data = vf.TaskData(prompt=PROMPT[1]["content"], system_prompt=PROMPT[0]["content"])
    config = vf.TaskConfig(rewards={"quality": {"fn": "reward_service.client.trainers.verifiers:trace_reward"}})
    messages = [SystemMessage(content=PROMPT[0]["content"]), UserMessage(content=PROMPT[1]["content"])]
    nodes = [MessageNode(message=one, parent=i - 1 if i else None) for i, one in enumerate(messages)]
    nodes.append(MessageNode(message=AssistantMessage(content=RESPONSE), parent=1, sampled=True))
    agent = vf.AgentInfo(config=vf.AgentConfig())
    return vf.Task(data, config), vf.Trace(task=vf.TraceTask(type="Task", data=data), agent=agent, nodes=nodes)


@needs_task
@pytest.mark.usefixtures("service_url")
async def test_a_task_gives_a_trace_the_reward_of_its_conversation(reward: Reward) -> None:
    task, trace = task_and_trace()
    await task.score(trace)
    assert trace.reward == pytest.approx(reward(PROMPT, RESPONSE), abs=1e-9)
    assert set(trace.metrics) >= TERMS


@needs_task
@pytest.mark.usefixtures("service_url")
async def test_a_failure_ends_the_scoring_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    import verifiers.v1 as vf

    monkeypatch.setenv("REWARD_SERVICE_OBJECTIVE", "neither")
    task, trace = task_and_trace()
    with pytest.raises(vf.TaskError, match="neither"):
        await task.score(trace)
    assert trace.rewards == {"quality": None}
