"""A peer: a plain Transformers reward server as trainers ship them: padded batches, first come first served.

python -m benchmarks.plain_server MODEL_FOLDER PORT [sorted]

With `sorted`, the conversations of a request are sorted by length first and batched up to 4,096 tokens.
"""

import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MAX_BATCH = 32
MAX_TOKENS = 4096


def plain_app(folder: str, *, by_length: bool) -> FastAPI:
    """POST /get_reward with rendered texts; answers raw scores."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).eval()
    lock = threading.Lock()
    app = FastAPI()

    def scores(texts: list[str]) -> list[float]:
        batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        return [float(x) for x in model(**batch.to(model.device)).logits[:, 0]]

    @app.post("/get_reward")
    def get_reward(body: dict[str, Any]) -> dict[str, list[float]]:
        texts = [str(tokenizer.apply_chat_template(one, tokenize=False)) for one in body["conversations"]]
        batches = sorted_batches(texts) if by_length else plain_batches(texts)
        rewards = [0.0] * len(texts)
        with lock, torch.inference_mode():
            for batch in batches:
                for index, score in zip(batch, scores([texts[i] for i in batch]), strict=True):
                    rewards[index] = score
        return {"rewards": rewards}

    def plain_batches(texts: list[str]) -> list[list[int]]:
        indices = list(range(len(texts)))
        return [indices[i : i + MAX_BATCH] for i in range(0, len(texts), MAX_BATCH)]

    def sorted_batches(texts: list[str]) -> list[list[int]]:
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        batches: list[list[int]] = [[]]
        for index in sorted(range(len(texts)), key=lengths.__getitem__):
            if batches[-1] and (len(batches[-1]) + 1) * lengths[index] > MAX_TOKENS:
                batches.append([])
            batches[-1].append(index)
        return batches

    return app


if __name__ == "__main__":
    uvicorn.run(plain_app(sys.argv[1], by_length="sorted" in sys.argv[3:]), port=int(sys.argv[2]), log_level="warning")
