"""The peer: a plain Transformers reward server as trainers ship them: padded batches, first come first served.

python benchmarks/plain_server.py MODEL_FOLDER PORT
"""

import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MAX_BATCH = 32


def plain_app(folder: str) -> FastAPI:
    """POST /get_reward with rendered texts; answers raw scores."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    lock = threading.Lock()
    app = FastAPI()

    def scores(texts: list[str]) -> list[float]:
        batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        return [float(x) for x in model(**batch.to(model.device)).logits[:, 0]]

    @app.post("/get_reward")
    def get_reward(body: dict[str, Any]) -> dict[str, list[float]]:
        texts = [str(tokenizer.apply_chat_template(one, tokenize=False)) for one in body["conversations"]]
        with lock, torch.inference_mode():
            parts = [scores(texts[i : i + MAX_BATCH]) for i in range(0, len(texts), MAX_BATCH)]
        return {"rewards": [score for part in parts for score in part]}

    return app


if __name__ == "__main__":
    uvicorn.run(plain_app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
