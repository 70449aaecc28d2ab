"""Reference scores with the Auto classes and `apply_chat_template` alone: one conversation at a time, in float32.

    python reference.py CONVERSATIONS.jsonl SCORES.json MAX_TOKENS FOLDER...

Over-long conversations lose their oldest tokens; a leading BOS (or CLS) stays.
"""

import json
import sys
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def ids_of(tokenizer: Any, messages: list[dict[str, Any]], max_tokens: int) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    if len(ids) <= max_tokens:
        return ids
    if ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id):
        return ids[:1] + ids[-(max_tokens - 1) :]
    return ids[-max_tokens:]


def scores_of(folder: str, conversations: list[list[dict[str, Any]]], max_tokens: int) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    scores: list[list[float]] = []
    with torch.inference_mode():
        for messages in conversations:
            ids = torch.tensor([ids_of(tokenizer, messages, max_tokens)])
            scores.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].tolist())
    return scores


def main(conversations: str, answer: str, max_tokens: str, *folders: str) -> None:
    with open(conversations) as lines:
        read = [json.loads(line) for line in lines]
    with open(answer, "w") as file:
        json.dump({folder: scores_of(folder, read, int(max_tokens)) for folder in folders}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
