"""The loaded models by name."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reward_service.config import Config, ModelConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Engine, EngineCard
from reward_service.errors import InvalidRequest, ModelNotFound
from reward_service.problems import nearest
from reward_service.schemas import ModelCard


@dataclass(frozen=True, slots=True)
class Model:
    """A reward model: what the file says of it, and the engine that computes it."""

    config: ModelConfig
    engine: Engine

    @property
    def name(self) -> str:
        """Its name in requests, answers and metrics."""
        return self.config.name

    @property
    def card(self) -> EngineCard:
        """What the engine says of itself."""
        return self.engine.card

    @property
    def fingerprint(self) -> str:
        """The hash that names the model's numbers."""
        return self.card.fingerprint.value

    def describe(self) -> ModelCard:
        """The model as it stands in answers."""
        return ModelCard(
            name=self.name,
            kind=self.config.kind,
            source=self.config.source,
            engine=self.card.engine,
            device=self.card.device,
            dtype=self.card.dtype,
            labels=list(self.card.labels),
            parameters=self.card.parameters,
            max_tokens=self.card.max_tokens,
            temperature=self.config.temperature,
            fingerprint=self.fingerprint,
            fingerprint_kind=self.card.fingerprint.kind,
        )

    def output(self, label: int | str) -> int:
        """The index of an output; InvalidRequest names the labels there are."""
        labels = self.card.labels
        if isinstance(label, int) and 0 <= label < len(labels):
            return label
        if isinstance(label, str) and label in labels:
            return labels.index(label)
        valid = ", ".join(f"{i} or {name!r}" for i, name in enumerate(labels))
        raise InvalidRequest(f"label: model {self.name!r} has no output {label!r}; valid: {valid}")


class Catalog:
    """The models of one service."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = dict(models)

    def __getitem__(self, name: str) -> Model:
        if name not in self._models:
            raise ModelNotFound(f"no model {name!r}{nearest(name, self._models)}")
        return self._models[name]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    async def start(self) -> None:
        """Load every model, one after the other: two at once would need the memory of both while they load."""
        for model in self:
            await model.engine.start()

    async def close(self) -> None:
        """Finish what was accepted, then stop."""
        await asyncio.gather(*(model.engine.close() for model in self))


def build_catalog(config: Config, devices: Devices) -> Catalog:
    """The models of a configuration, not yet loaded."""
    return Catalog({model.name: Model(model, create(model, devices)) for model in config.models})
