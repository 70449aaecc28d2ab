"""GRPO with rewards from a service: TRL trains a small policy on the CPU, in a minute or two.

    python examples/trl_grpo.py --demo                        # starts `reward-service demo` for itself
    python examples/trl_grpo.py --url http://127.0.0.1:8000   # or uses a service that runs

It needs the packages `trl` and, for --demo, `reward-service[server]`. Nothing is downloaded: the policy is made from a
configuration. It knows the words of the demo's conversations and no grammar, so all that it can learn is which words
the two reward models like. The one line that matters is `reward_funcs=reward_func(...)`.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from reward_service import demo
from reward_service.client import Client
from reward_service.client.trainers.trl import reward_func

SPECIAL_TOKENS = ["<pad>", "<end>", "<unknown>", "<user>", "<assistant>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<' ~ message['role'] ~ '>' ~ message['content'] ~ '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
GENERATIONS = 8
WORDS = 12


def main() -> None:
    arguments = parse_arguments()
    # TRL 1.16 asks transformers 5.23 in the old way.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    with demo_service() if arguments.demo else nullcontext(arguments.url) as url:
        policy, tokenizer = small_policy()
        train(policy, tokenizer, url, arguments.objective, arguments.steps)
        show(policy, tokenizer, url, arguments.objective)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service; several replicas with commas")
    parser.add_argument("--objective", default="helpful-and-harmless")
    parser.add_argument("--demo", action="store_true", help="start the demo's service, and stop it at the end")
    parser.add_argument("--steps", type=int, default=60)
    return parser.parse_args()


def train(policy: Any, tokenizer: Any, url: str, objective: str, steps: int) -> None:
    """An ordinary run of GRPO; the service is asked once in each step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy,
            processing_class=tokenizer,
            reward_funcs=reward_func(url, objective, eos_token_id=tokenizer.eos_token_id),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts() * steps]),
            args=GRPOConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=4 * GENERATIONS,
                num_generations=GENERATIONS,
                max_completion_length=WORDS,
                learning_rate=3e-3,
                logging_steps=max(1, steps // 10),
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                disable_tqdm=True,
            ),
            callbacks=[Table(objective)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


class Table(TrainerCallback):
    """Prints what the reward is made of, as the run goes on."""

    def __init__(self, objective: str) -> None:
        self._own = re.compile(rf"{re.escape(objective)}/(.+/.+)")
        self._columns: list[str] = []

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs = given["logs"]
        if "reward" not in logs:
            return
        numbers = {"reward": logs["reward"]}
        numbers.update({found[1]: value for name, value in logs.items() if (found := self._own.fullmatch(name))})
        if not self._columns:
            self._columns = list(numbers)
            print("step", *(f"{name:>22}" for name in self._columns))
        print(f"{state.global_step:4}", *(f"{numbers[name]:22.3f}" for name in self._columns), flush=True)


def show(policy: Any, tokenizer: Any, url: str, objective: str) -> None:
    """A response of the trained policy to each prompt, and where the numbers of its reward came from."""
    conversations: list[dict[str, Any]] = [
        {"prompt": prompt, "response": response}
        for prompt, response in zip(prompts(), responses(policy, tokenizer, prompts()), strict=True)
    ]
    with Client(url.split(",")) as client:
        answer = client.score(conversations, objective)
    for conversation, score in zip(conversations, answer.scores, strict=True):
        print(f"\n{conversation['prompt'][-1]['content']}\n  {conversation['response']}")
        print(f"  reward {score.reward:.3f}")
        for term in score.terms:
            baseline = "" if term.baseline is None else f" - baseline {term.baseline:.3f} ({term.baseline_source})"
            print(f"    {term.name}: raw {term.raw:.3f}{baseline} > transformed {term.transformed:.3f}")
    print(f"\nobjective {answer.objective} {answer.objective_hash}")
    for name, model in answer.models.items():
        print(f"  {name}: {model.fingerprint} ({model.dtype}, {model.engine})")


def prompts() -> list[list[dict[str, str]]]:
    """The prompts of the demo's conversations, each once."""
    return list({one.question: one.prompt for one in demo.conversations()}.values())


def responses(policy: Any, tokenizer: Any, asked: Sequence[Any]) -> list[str]:
    """One sampled response to each prompt."""
    given = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        ids = policy.eval().generate(**given, max_new_tokens=WORDS, do_sample=True)
    texts: list[str] = tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def small_policy() -> tuple[Any, Any]:
    """A Llama of two layers with random weights, and a tokenizer with a token for each word."""
    texts = [text for one in demo.conversations() for text in (one.response, *(turn["content"] for turn in one.prompt))]
    word = Regex(r"\w+(?:'\w+)?|[^\w\s]")
    words = sorted({found for text in texts for found in re.findall(r"\w+(?:'\w+)?|[^\w\s]", text)})
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *words])}
    by_word = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    by_word.pre_tokenizer = pre_tokenizers.Split(word, "removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=by_word,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unknown>",
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config), tokenizer


@contextmanager
def demo_service() -> Iterator[str]:
    """`reward-service demo` as a process of its own; its URL."""
    command = [sys.executable, "-m", "reward_service.cli", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = next((url for line in process.stdout if (url := re.search(r"http://[\w.]+:\d+", line))), None)
        if found is None:
            sys.exit("the demo's service did not start")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield found[0]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
