"""Real TRL trainers on the CPU, with a policy made from a configuration. TRL takes seconds to import: only when run."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from transformers import TrainerCallback

from tests.trainers.policy import byte_tokenizer, tiny_policy

QUESTIONS = (
    "I would like to know how tall a giraffe is, from its feet to the top of its head. Can you tell me in a sentence?",
    "My neighbour plays loud music each night and I have to get up early. What could I say to him without a quarrel?",
    "Please explain to a child of six, in words that she knows, why the sky is blue and the evening is red.",
    "Somebody on the phone asks for the number of my bank card, and says it is urgent. What should I do?",
)
GENERATIONS = 4
BATCH = 8
SIZES: dict[str, Any] = {
    "per_device_train_batch_size": BATCH,
    "num_generations": GENERATIONS,
    "max_completion_length": 16,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "disable_tqdm": True,
}
Log = list[dict[str, float]]


def dataset(*, is_conversational: bool) -> Any:
    """The questions as rows of a dataset, plain or as messages, with a column that the reward may read."""
    from datasets import Dataset

    rows = [[{"role": "user", "content": question}] if is_conversational else question for question in QUESTIONS]
    return Dataset.from_dict({"prompt": rows * 20, "ground_truth": ["5.5 m", None, None, None] * 20})


def grpo(
    rewards: Any,
    folder: Path,
    *,
    steps: int = 20,
    is_conversational: bool = True,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> Log:
    """What GRPOTrainer logs of a run, step by step."""
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(output_dir=str(folder), max_steps=steps, **{**SIZES, **options})
    return _run(GRPOTrainer, config, rewards, is_conversational=is_conversational, callbacks=callbacks)


def rloo(rewards: Any, folder: Path, *, steps: int) -> Log:
    """What RLOOTrainer logs of a run on plain prompts, step by step."""
    from trl import RLOOConfig, RLOOTrainer

    config = RLOOConfig(output_dir=str(folder), max_steps=steps, beta=0.0, **SIZES)
    return _run(RLOOTrainer, config, rewards, is_conversational=False)


def _run(kind: Any, config: Any, rewards: Any, *, is_conversational: bool, callbacks: Sequence[Any] = ()) -> Log:
    tokenizer = byte_tokenizer()
    trainer = kind(
        model=tiny_policy(tokenizer),
        reward_funcs=rewards,
        args=config,
        train_dataset=dataset(is_conversational=is_conversational),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


class AtStep(TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self._step = step
        self._action = action

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self._step:
            self._action()


def samples(url: str, labelled: str) -> Counter[str]:
    """The service's metrics with a label of this value: name, for a bucket with its bound, to value."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text):
        for one in family.samples:
            if labelled in one.labels.values():
                bound = f"[{float(one.labels['le']):g}]" if "le" in one.labels else ""
                found[one.name.removeprefix("reward_service_") + bound] += one.value  # type: ignore[assignment]
    return found
