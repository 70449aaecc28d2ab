"""The loaded models by name, and who uses them: one that is replaced closes after its last request."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from reward_service.config import Config, ModelConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Engine, EngineCard
from reward_service.engine.memory import release_memory
from reward_service.errors import InvalidRequest, ModelNotFound
from reward_service.problems import nearest
from reward_service.schemas import ModelCard

log = logging.getLogger(__name__)


class Users:
    """How many requests use a model now. Used from one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def enter(self) -> None:
        """One more."""
        self._count += 1
        self._none.clear()

    def leave(self) -> None:
        """One less."""
        self._count -= 1
        if not self._count:
            self._none.set()

    async def gone(self) -> None:
        """Returns when there are none."""
        await self._none.wait()


@dataclass(frozen=True, slots=True)
class Model:
    """A reward model: what the file says of it, and the engine that computes it."""

    config: ModelConfig
    engine: Engine
    users: Users = field(default_factory=Users, repr=False, compare=False)

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


Models = Mapping[str, Model]
Create = Callable[[ModelConfig], Engine]


class Lease:
    """None of the models closes before the block ends: `with Lease(models):`."""

    __slots__ = ("_models",)

    def __init__(self, models: Models) -> None:
        self._models = models

    def __enter__(self) -> Models:
        for model in self._models.values():
            model.users.enter()
        return self._models

    def __exit__(self, *_error: object) -> None:
        for model in self._models.values():
            model.users.leave()


class Catalog:
    """The models of one service. Used from one event loop.

    A model is replaced as a whole: who looks at `models` or leases some sees one state of them, whatever comes later.
    """

    def __init__(self, models: Models, create: Create) -> None:
        self.models: Models = dict(models)
        self._create = create
        self._retiring: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> Model:
        if name not in self.models:
            raise ModelNotFound(f"no model {name!r}{nearest(name, self.models)}")
        return self.models[name]

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models.values())

    def lease(self, names: Iterable[str]) -> Lease:
        """The named models as they are now: `with catalog.lease(names) as models:`."""
        return Lease({name: self[name] for name in names})

    async def start(self) -> None:
        """Load every model, one after the other: two at once would need the memory of both while they load."""
        for model in self:
            await model.engine.start()

    async def load_beside(self, name: str) -> Model:
        """The model as its files are now, loaded while the one of that name serves on; raises what hinders it."""
        config = self[name].config
        fresh = Model(config, self._create(config))
        try:
            await fresh.engine.start()
        except BaseException:
            await self.discard(fresh)
            raise
        return fresh

    async def discard(self, model: Model) -> None:
        """Closes a model that does not serve (any more) once its last request is answered, and frees its memory."""
        await model.users.gone()
        try:
            await model.engine.close()
        except Exception:
            log.exception("model %s: an engine could not be closed", model.name)
        await asyncio.to_thread(release_memory)

    def replace(self, fresh: Model) -> None:
        """Lets `fresh` serve from now on; the model that it replaces closes once its last request is answered."""
        replaced = self[fresh.name]
        self.models = {**self.models, fresh.name: fresh}
        retiring = asyncio.create_task(self.discard(replaced))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Finish what was accepted, then stop."""
        await asyncio.gather(*self._retiring, *(model.engine.close() for model in self))


def build_catalog(config: Config, devices: Devices) -> Catalog:
    """The models of a configuration, not yet loaded."""
    engine = partial(create, devices=devices)
    return Catalog({model.name: Model(model, engine(model)) for model in config.models}, engine)
