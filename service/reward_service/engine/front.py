"""What engines of models have in common: admission and rendering before a queue, and scores that no model gives."""

import functools
from collections.abc import Sequence

import numpy as np

from reward_service.config import ClassifierConfig
from reward_service.engine.devices import Devices
from reward_service.engine.engine import EngineCard, Estimate, Item, ItemError, Priority
from reward_service.engine.intake import Entrance, Queue, Render
from reward_service.engine.rendering import Rendered
from reward_service.errors import NotReady


class Front:
    """The part of an engine before its queue."""

    def __init__(self, config: ClassifierConfig, devices: Devices) -> None:
        self._config = config
        self._devices = devices
        self._card: EngineCard | None = None
        self._entrance: Entrance | None = None

    @property
    def card(self) -> EngineCard:
        """What the engine is; raises NotReady before `start` has returned."""
        if self._card is None:
            raise self._not_ready()
        return self._card

    @property
    def work_s(self) -> float:
        """How long its device needs for what was accepted."""
        return 0.0 if self._entrance is None else self._entrance.queue.account.work_s

    async def score(
        self,
        items: Sequence[Item],
        *,
        priority: Priority,
        deadline: float,
        admitted: bool = False,
        use_cache: bool = True,
    ) -> list[Estimate | ItemError]:
        """One result per item, in order."""
        if self._entrance is None:
            raise self._not_ready()
        fixed = {index: result for index, item in enumerate(items) if (result := self._unfinished(item)) is not None}
        rest = [item for index, item in enumerate(items) if index not in fixed]
        scored = iter(
            await self._entrance.score(
                rest, priority=priority, deadline=deadline, admitted=admitted, use_cache=use_cache
            )
        )
        return [fixed[index] if index in fixed else next(scored) for index in range(len(items))]

    def _open(self, card: EngineCard, queue: Queue, render: Render, *, numerics: str = "") -> None:
        """Lets requests in; kept scores are those of the card's fingerprint and of what else decides the numbers."""
        scores = self._devices.scores_of(self._config.name, card.fingerprint.value + numerics)
        self._card = card
        noted = functools.partial(self._noted, render)
        self._entrance = Entrance(queue, noted, self._devices.rendering, scores, max_tokens=card.max_tokens)

    def _noted(self, render: Render, item: Item) -> Rendered:
        """The item rendered; that it spells special tokens is told to the observer."""
        rendered = render(item)
        if rendered.spelled and self._devices.observer is not None:
            self._devices.observer.on_spelled(self._config.name)
        return rendered

    async def _shut(self) -> None:
        """Finishes what was accepted and lets no more in."""
        entrance, self._entrance = self._entrance, None
        if entrance is not None:
            await entrance.close()

    def _unfinished(self, item: Item) -> Estimate | None:
        """The score that the configuration gives a response cut at the length limit, if it gives one."""
        value = self._config.on_unfinished
        if isinstance(value, str) or item.finish_reason != "length":
            return None
        return Estimate(np.full(len(self.card.labels), float(value)), tokens=0, tokens_computed=0)

    def _not_ready(self) -> NotReady:
        return NotReady(f"model {self._config.name!r} is not loaded")
