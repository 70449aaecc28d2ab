"""verifiers, and prime-rl with it: rewards of a rollout, for both forms of the library.

verifiers 0.1 (a rubric of functions):

    from reward_service.client.trainers.verifiers import rubric_reward, rubric_terms

    rubric = vf.Rubric(funcs=[rubric_reward("http://host:port", "helpful-and-harmless")])

with the terms as metrics beside it: `funcs=[rubric_reward(...), *rubric_terms(["helpful", "harmless"], ...)]` and
`weights=[1.0, 0.0, 0.0]`.

verifiers 0.4 (a function of the trace, named in the configuration; service, objective and key from the environment):

    [env.taskset.task.rewards.quality]
    fn = "reward_service.client.trainers.verifiers:trace_reward"
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from reward_service.client.trainers.connecting import Connection, Urls, connect, refuse_none, refuse_number
from reward_service.client.trainers.rollouts import Turns, conversation, message, numbers, plain, term_numbers
from reward_service.schemas import ScoreAnswer

KEPT = "reward_service"
"""Where in the state of a rollout its conversation and numbers are: one request is enough for the whole rubric."""


class NoReward(BaseException):
    """There is none, and `__cause__` says why.

    A rubric of verifiers 0.1 makes 0.0 of an Exception. This is none, so that it ends the run.
    """


RubricFunction = Callable[..., Awaitable[float]]


def rubric_reward(url: Urls | None = None, objective: str | None = None, **options: Any) -> RubricFunction:
    """A function from a rollout to the reward of an objective; the arguments are those of `connect`."""
    return _function("reward", "reward", _connection(url, objective, options))


def rubric_terms(
    terms: Sequence[str], url: Urls | None = None, objective: str | None = None, **options: Any
) -> list[RubricFunction]:
    """A function for the transformed score of each term of an objective."""
    refuse_number(options)
    connection = _connection(url, objective, options)
    return [_function(term, f"{term}/transformed", connection) for term in terms]


async def trace_reward(task: Any, trace: Any) -> float:  # noqa: ARG001  # verifiers tells by name what it passes
    """The reward of a trace's last branch; the numbers of each term become metrics of the trace."""
    asked: dict[str, Any] = {"messages": [_turn(one) for one in trace.messages]}
    if trace.is_truncated:
        asked["finish_reason"] = "length"
    answer = await connect().score_async([asked])
    trace.record_metrics({name: values[0] for name, values in term_numbers(answer).items() if values[0] is not None})
    return numbers(answer)[0]


def _connection(url: Urls | None, objective: str | None, options: dict[str, Any]) -> Connection:
    refuse_none(options, "a rubric counts None as 0")
    return connect(url, objective, **options)


def _function(name: str, number: str, connection: Connection) -> RubricFunction:
    async def function(prompt: Turns, completion: Turns, answer: Any, state: dict[str, Any]) -> float:
        kept = state.setdefault(KEPT, {})
        key = repr(connection)
        try:
            asked = _asked(prompt, completion, answer)
            if key not in kept or kept[key][0] != asked:
                kept[key] = asked, _told(await connection.score_async([asked]))
        except Exception as error:
            raise NoReward(f"{type(error).__name__}: {error}") from error
        found = kept[key][1].get(number)
        if found is None:
            raise NoReward(f"{number!r} is none of {sorted(_there(kept[key][1]))}")
        return float(found)

    function.__name__ = name
    return function


def _asked(prompt: Turns, completion: Turns, answer: Any) -> dict[str, Any]:
    turns = prompt if isinstance(prompt, str) else [_turn(one) for one in prompt]
    said = completion if isinstance(completion, str) else [_turn(one) for one in completion]
    return conversation(turns, said, ground_truth=None if answer == "" else plain(answer))


def _there(numbers: dict[str, float | None]) -> list[str]:
    return [name for name, number in numbers.items() if number is not None]


def _told(answer: ScoreAnswer) -> dict[str, float | None]:
    return {"reward": numbers(answer)[0], **{name: values[0] for name, values in term_numbers(answer).items()}}


def _turn(given: Any) -> dict[str, Any]:
    """A message; the tool calls of verifiers 0.4 in the OpenAI form."""
    turn = message(given)
    if calls := turn.get("tool_calls"):
        turn["tool_calls"] = [one if "function" in one else _tool_call(one) for one in calls]
    return turn


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
