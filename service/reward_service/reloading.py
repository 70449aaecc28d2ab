"""Reloads: a model loaded anew beside the one that serves, then swapped for it between two requests."""

import asyncio
import logging
import time
from functools import partial

from reward_service.catalog import Catalog, Model
from reward_service.errors import ConfigError, ReloadFailed, ReloadUnderway, ServiceError
from reward_service.objectives import ObjectiveCatalog
from reward_service.schemas import ModelReloaded

log = logging.getLogger(__name__)

NOT_BESIDE = {"vllm": "vLLM keeps the device's memory for the model that it serves; start the service anew instead"}
"""Engines of which two cannot stand side by side, and what to do."""


class Reloads:
    """The reloads of one service, one at a time: each needs the memory of its model twice. Used from one event loop."""

    def __init__(self, catalog: Catalog, objectives: ObjectiveCatalog) -> None:
        self._catalog = catalog
        self._objectives = objectives
        self._turn = asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[ModelReloaded]] = {}

    async def reload(self, name: str) -> ModelReloaded:
        """Loads what the configuration names, checks it as at the start, and lets it serve.

        Raises ModelNotFound, ReloadUnderway, or ReloadFailed, after which the model that served serves on. A reload
        goes on when its caller leaves.
        """
        engine = self._catalog[name].config.engine
        if name in self._under_way:
            raise ReloadUnderway(f"model {name!r} is being reloaded already; its caller gets the answer")
        if engine in NOT_BESIDE:
            raise ReloadFailed(
                f"model {name!r}: engine {engine!r} cannot be loaded beside itself: {NOT_BESIDE[engine]}"
            )
        task = self._under_way[name] = asyncio.create_task(self._in_turn(name))
        task.add_done_callback(partial(self._ended, name))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Ends what is under way; the models that serve stay."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_turn(self, name: str) -> ModelReloaded:
        async with self._turn:
            started = time.monotonic()
            before = self._catalog[name].describe()
            try:
                fresh = await self._catalog.load_beside(name)
            except ServiceError as error:
                raise ReloadFailed(f"{error.detail}; the model that was loaded serves on") from error
            await self._swap(fresh)
            return ModelReloaded(before=before, after=fresh.describe(), seconds=time.monotonic() - started)

    async def _swap(self, fresh: Model) -> None:
        """Objectives and models change in one turn of the event loop: no request sees one without the other."""
        try:
            self._objectives.fit({**self._catalog.models, fresh.name: fresh})
        except ConfigError as error:
            await self._catalog.discard(fresh)
            problems = "; ".join(error.problems)
            raise ReloadFailed(f"the objectives do not fit model {fresh.name!r} as it is now: {problems}") from error
        self._catalog.replace(fresh)

    def _ended(self, name: str, task: "asyncio.Task[ModelReloaded]") -> None:
        del self._under_way[name]
        if task.cancelled():
            log.warning("model %s: its reload was given up", name)
        elif (error := task.exception()) is not None:
            log.warning("model %s was not reloaded: %s", name, error)
        else:
            answer = task.result()
            told = answer.before.fingerprint, answer.after.fingerprint, answer.seconds
            log.info("model %s was reloaded: %s is now %s, after %.1f s", name, *told)
