"""One GRPO run of TRL's own trainer, its rewards from the live service."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.sampling import load
from benchmarks.learning.sizes import Sizes
from benchmarks.learning.world import Prompt

from reward_service.client.trainers.trl import reward_func

Log = list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """What tells one run in a world from another; `seed` is that of sampling, the order of prompts included."""

    arm: str
    scale: str
    seed: int


def trained(
    policy: Path, prompts: Sequence[Prompt], url: str, run: Run, factor: float, sizes: Sizes
) -> tuple[Any, Log]:
    """The policy after a run, and what TRL logged at each step.

    `factor` multiplies every reward. There is no KL penalty, the learning rate is constant, all else is TRL's default.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = load(policy)
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            max_steps=sizes.steps,
            per_device_train_batch_size=sizes.prompts_per_step * sizes.group,
            num_generations=sizes.group,
            max_completion_length=sizes.max_completion_tokens,
            learning_rate=sizes.learning_rate,
            lr_scheduler_type="constant",
            scale_rewards=run.scale,
            reward_weights=[factor],
            beta=0.0,
            seed=run.seed,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward_func(url, run.arm),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": one.text}] for one in prompts]}),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model, [entry for entry in trainer.state.log_history if "reward" in entry]
