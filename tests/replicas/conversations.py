"""A service on a shared store, and requests whose every reward is known beforehand."""

import math
from typing import Any

PROMPTS = 40
REFERENCES = 16
RAW = 1.5
CANNED = 0.5
CONSTANT = 0.25

CONFIG = """
[store]
url = "{url}"
timeout_s = 5.0

[[models]]
name = "helpful"
source = "org/helpful"

[[objectives]]
name = "stored"
aggregate = "and"
terms = [{{ model = "helpful", transform = "log_sigmoid_centered", baseline = {{ policy = "sft", method = "mean" }} }}]

[[objectives]]
name = "canned"
aggregate = "and"
terms = [{{ model = "helpful", transform = "log_sigmoid_centered", baseline = {{ response = "0.5" }} }}]

[[objectives]]
name = "constant"
aggregate = "and"
terms = [{{ model = "helpful", transform = "log_sigmoid_centered", baseline = 0.25 }}]

[[objectives]]
name = "raw"
aggregate = "mean"
terms = [{{ model = "helpful", transform = "identity" }}]
"""


def prompt(index: int) -> str:
    """The text of a prompt that has stored references."""
    return f"prompt {index}"


def baseline(index: int) -> float:
    """What every stored reference of the prompt is."""
    return index / 16


def written(policy: str = "sft", **changes: Any) -> dict[str, Any]:
    """The request that stores the references of all prompts."""
    entries = [{"prompt": prompt(i), "rewards": [baseline(i)] * REFERENCES} for i in range(PROMPTS)]
    return {"model": "helpful", "policy": policy, "entries": entries} | changes


def asked(objective: str, *prompts: str, **fields: Any) -> dict[str, Any]:
    """A request for one conversation of each prompt."""
    conversations = [{"prompt": one, "response": str(RAW), **fields} for one in prompts]
    return {"objective": objective, "conversations": conversations}


def log_sigmoid(margin: float) -> float:
    """log P(better) at a margin, as the service computes it."""
    return -math.log1p(math.exp(-margin))
