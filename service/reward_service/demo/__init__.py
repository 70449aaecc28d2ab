"""What `reward-service demo` shows: two small reward models, conversations, and references to compare them with."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_service.config import Config, parse_config

FOLDER = Path(__file__).parent
POLICY = "demo-policy"
MODELS = ("helpful", "harmless")


@dataclass(frozen=True, slots=True)
class DemoConversation:
    """A prompt and one response to it; `kind` says what the response was written to be."""

    id: str
    prompt: list[dict[str, str]]
    response: str
    kind: str

    @property
    def question(self) -> str:
        """The last user turn."""
        return self.prompt[-1]["content"]


def demo_config(port: int) -> Config:
    """The demo's configuration: everything embedded, nothing written to disk."""
    return parse_config(
        {
            "server": {"port": port},
            "store": {"url": "memory://"},
            "models": [_model(name) for name in MODELS],
            "objectives": [
                {"name": "helpful-and-harmless", "aggregate": "and", "terms": [_term(name) for name in MODELS]}
            ],
        },
        {},
        source="the demo's configuration",
    )


def conversations() -> list[DemoConversation]:
    """The bundled conversations, those of one prompt together."""
    return [DemoConversation(**row) for row in _rows("conversations.jsonl")]


def references() -> list[dict[str, Any]]:
    """The bundled reference responses as entries of PUT /v1/baselines."""
    return list(_rows("references.jsonl"))


def global_snapshot(model: str) -> dict[str, Any]:
    """The bundled global snapshot of a model: what a prompt without references is compared with."""
    document: dict[str, Any] = json.loads((FOLDER / "models" / model / "global_snapshot.json").read_text("utf-8"))
    return document


def _model(name: str) -> dict[str, Any]:
    """A bundled model as it was measured: its length and its temperature are those of its training record."""
    folder = FOLDER / "models" / name
    record = json.loads((folder / "training_record.json").read_text("utf-8"))
    return {
        "name": name,
        "source": str(folder),
        "dtype": "float32",
        "device": "cpu",
        "max_tokens": record["recipe"]["architecture"]["max_position_embeddings"],
        "temperature": record["temperature"],
    }


def _term(name: str) -> dict[str, Any]:
    baseline = {"policy": POLICY, "quantile": 0.85, "on_missing": "global"}
    return {"model": name, "transform": "log_sigmoid_centered", "baseline": baseline}


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (FOLDER / name).open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())
