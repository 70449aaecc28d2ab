"""Responses of a policy, and how far it has gone from where it began."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

ROWS = 256


def load(folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    """The policy of a folder and its tokenizer, padding on the left."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokenizer


@torch.no_grad()
def sampled(
    policy: Any, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], count: int, max_tokens: int, seed: int
) -> list[list[str]]:
    """`count` responses to each prompt, at temperature 1."""
    torch.manual_seed(seed)
    policy.train(False)
    asked = [_asked(tokenizer, prompt) for prompt in prompts for _ in range(count)]
    texts: list[str] = []
    for start in range(0, len(asked), ROWS):
        batch = tokenizer(asked[start : start + ROWS], return_tensors="pt", padding=True, add_special_tokens=False)
        ids = policy.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        texts += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [texts[start : start + count] for start in range(0, len(texts), count)]


@torch.no_grad()
def divergence(
    policy: Any,
    initial: Any,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
) -> float:
    """KL of the policy from the initial one in nats a response, over the policy's own `responses` to each prompt."""
    ratios = [
        _log_likelihood(policy, tokenizer, prompt, of) - _log_likelihood(initial, tokenizer, prompt, of)
        for prompt, of in zip(prompts, responses, strict=True)
    ]
    return float(torch.cat(ratios).mean())


def _log_likelihood(
    policy: Any, tokenizer: PreTrainedTokenizerFast, prompt: str, responses: Sequence[str]
) -> torch.Tensor:
    """log p (responses,) of the tokens behind the prompt, the end of the turn included."""
    asked = _asked(tokenizer, prompt)
    begins = len(tokenizer(asked, add_special_tokens=False)["input_ids"])
    texts = [f"{asked}{response}{tokenizer.eos_token}" for response in responses]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    log_p = policy(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    of_tokens = log_p.gather(-1, ids[:, 1:, None]).squeeze(-1) * mask[:, 1:]
    log_likelihood: torch.Tensor = of_tokens[:, begins - 1 :].sum(1)
    return log_likelihood


def _asked(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    question = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
