"""NeMo-RL: an environment, registered by the script that starts the training before it makes its environments.

    from reward_service.client.trainers.nemo_rl import register

    register("reward_service")

    env: {reward_service: {url: "http://host:port", objective: helpful-and-harmless}}

The values of the environment's configuration are the arguments of `connect`, and `input` and `components`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from reward_service.client.trainers.connecting import connect, refuse_none, refuse_number
from reward_service.client.trainers.rendered import Input, check_input, of_query
from reward_service.client.trainers.rollouts import message, numbers, plain, term_numbers
from reward_service.schemas import ScoreAnswer

NAME = f"{__name__}.RewardServiceEnvironment"
AT_ONCE = 128
"""Steps at once: the asynchronous rollouts of NeMo-RL take one for each sample."""


class Environment:
    """Scores whole conversations, and ends each episode; the methods of NeMo-RL's `EnvironmentInterface`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        options = dict(config)
        refuse_none(options, "NeMo-RL has no place for a sample without a reward")
        self._input: Input = check_input(options.pop("input", "reparse"))
        self._has_components = bool(options.pop("components", False))
        if self._has_components:
            refuse_number(options)
        self._connection = connect(**options)

    def step(self, message_log_batch: Sequence[Any], metadata: Sequence[Any]) -> Any:
        """The rewards of a batch as NeMo-RL's EnvironmentReturn; with `components`, a tensor for each term by name.

        Components are transformed and not weighed, for an advantage that normalises each by itself (GDPO).
        """
        import torch

        asked = [self._conversation(log, known) for log, known in zip(message_log_batch, metadata, strict=True)]
        answer = self._connection.score(asked)
        rewards = {name: torch.tensor(values) for name, values in self._rewards(answer).items()}
        count = len(asked)
        told = {
            "observations": [{"role": "environment", "content": f"Environment: {one}"} for one in numbers(answer)],
            "metadata": [None] * count,
            "next_stop_strings": [None] * count,
            "rewards": rewards if self._has_components else rewards["reward"],
            "terminateds": torch.ones(count, dtype=torch.bool),
            "answers": [None] * count,
        }
        made = import_module("nemo_rl.environments.interfaces").EnvironmentReturn
        return made(**{name: told[name] for name in made._fields})

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """The batch as it is, and the mean reward."""
        found = batch.get("rewards")
        return batch, {"reward_service/mean_reward": float(found.float().mean())} if hasattr(found, "float") else {}

    def _rewards(self, answer: ScoreAnswer) -> dict[str, list[float | None]]:
        rewards: list[float | None] = [*numbers(answer)]
        if not self._has_components:
            return {"reward": rewards}
        terms = term_numbers(answer)
        return {term.name: terms[f"{term.name}/transformed"] for term in answer.recipe.terms if term.weight > 0}

    def _conversation(self, log: Sequence[Mapping[str, Any]], known: Any) -> dict[str, Any]:
        """A log's prompt is rendered text, in its first messages, unless the data processor left the messages alone."""
        turns = [message(one) for one in log]
        truth = plain(known.get("ground_truth")) if isinstance(known, Mapping) else None
        if self._input == "messages":
            return {"messages": turns, **({} if truth is None else {"ground_truth": truth})}
        prompt = "".join(one["content"] for one in turns[:-1])
        asked = of_query(prompt + turns[-1]["content"], prompt, self._input, ground_truth=truth)
        asked.pop("finish_reason", None)  # NeMo-RL decodes a response without its end, so that none can be missed
        return asked


def register(name: str = "reward_service") -> None:
    """Make the environment known to NeMo-RL under this name."""
    registry = import_module("nemo_rl.distributed.ray_actor_environment_registry")
    executables = import_module("nemo_rl.distributed.virtual_cluster").PY_EXECUTABLES
    registry.ACTOR_ENVIRONMENT_REGISTRY[NAME] = executables.SYSTEM
    import_module("nemo_rl.environments.utils").register_env(name, NAME)


def __getattr__(name: str) -> Any:
    """`RewardServiceEnvironment`: the class as a Ray actor, made when NeMo-RL asks for it."""
    if name != "RewardServiceEnvironment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("ray").remote(max_concurrency=AT_ONCE)(Environment)
