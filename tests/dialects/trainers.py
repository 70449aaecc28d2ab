"""The trainers as the tests see them: what each sends for samples, and what it reads from the answer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.dialects.conversations import Sample


@dataclass(frozen=True)
class Trainer:
    """A trainer by name. `path` has the objective as `{objective}`; `sends_prompt` says whether a prompt stands apart.

    `batches` is False for one that sends one sample per request.
    """

    name: str
    path: str
    body: Callable[[Sequence[Sample]], dict[str, Any]]
    rewards: Callable[[Any], list[float]]
    batches: bool
    sends_prompt: bool
    required: str

    def url(self, objective: str) -> str:
        return self.path.format(objective=objective)

    def post(self, http: httpx.Client, objective: str, samples: Sequence[Sample], query: str = "") -> httpx.Response:
        """Sends samples as the trainers' HTTP libraries do, in ASCII."""
        content = json.dumps(self.body(samples))
        return http.post(self.url(objective) + query, content=content, headers={"content-type": "application/json"})


OPENRLHF = Trainer(
    name="openrlhf",
    path="/openrlhf/{objective}/get_reward",
    body=lambda samples: {
        "query": [one.rendered for one in samples],
        "prompts": [one.rendered_prompt for one in samples],
        "labels": ["" for _ in samples],
    },
    rewards=lambda document: list(document["rewards"]),
    batches=True,
    sends_prompt=True,
    required="query",
)
SLIME = Trainer(
    name="slime",
    path="/slime/{objective}",
    body=lambda samples: {"prompt": samples[0].rendered_prompt, "response": samples[0].rendered_response, "label": "5"},
    rewards=lambda document: [float(document)],
    batches=False,
    sends_prompt=True,
    required="response",
)
LLAMA_FACTORY = Trainer(
    name="llamafactory",
    path="/llamafactory/{objective}",
    body=lambda samples: {"model": "model", "messages": [one.rendered for one in samples]},
    rewards=lambda document: list(document["scores"]),
    batches=True,
    sends_prompt=False,
    required="messages",
)
TRAINERS = (OPENRLHF, SLIME, LLAMA_FACTORY)


def has_a_number(response: httpx.Response) -> bool:
    """Whether a trainer could read a reward from the answer: a success, a bare number, or one under a reward's name."""
    document = response.json()
    if response.status_code == 200 or not isinstance(document, dict):
        return True
    return bool({"rewards", "scores", "reward", "score", "data", "response", "choices"} & document.keys())
