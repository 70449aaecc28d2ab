"""Scores of a sequence-classification model, computed here with torch."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import transformers
from numpy.typing import NDArray

from reward_service.config import ClassifierConfig
from reward_service.engine.devices import Devices
from reward_service.engine.engine import EngineCard, Fingerprint
from reward_service.engine.fingerprint import fingerprint, stamps
from reward_service.engine.forward import Forward
from reward_service.engine.front import Front
from reward_service.engine.intake import LaneQueue
from reward_service.engine.lanes import Lane
from reward_service.engine.loading import Loaded, load, resolve_device
from reward_service.engine.memory import keep_few_kernels, keep_freed_memory, release_memory
from reward_service.engine.packed.choosing import packed_forward
from reward_service.engine.padded import padded_forward
from reward_service.engine.parity.check import check_parity
from reward_service.engine.positions import bound_of
from reward_service.engine.rendering import Renderer
from reward_service.errors import NotReady

NUMERICS = 1
"""Counts changes of the forwards that could change a score: none that was kept before is returned after one."""
PROBE = "A short text is enough to see how the model reads one, and how it reads several at once. " * 6


def default_batch_tokens(device: str) -> int:
    """Tokens per batch that keep a device busy; more only make a batch last longer."""
    return 4096 if device == "cpu" else 16_384


def _forward(config: ClassifierConfig, loaded: Loaded, probe: NDArray[np.int32]) -> Forward:
    """The fastest forward that gives the model's own scores."""
    if next(loaded.model.parameters()).device.type == "cpu":
        keep_few_kernels()
        keep_freed_memory()
    if config.packing != "off":
        packed = packed_forward(
            loaded.model,
            probe,
            loaded.pad_token_id,
            share=config.packing == "shared",
            compiled=config.compile,
            max_tokens=loaded.max_tokens,
        )
        if packed is not None:
            return packed
    bound = bound_of(loaded.model.config.get_text_config())  # type: ignore[operator,union-attr]
    return padded_forward(loaded.model, probe, loaded.pad_token_id, batches=bound is None or loaded.max_tokens <= bound)


def _fingerprint(config: ClassifierConfig, loaded: Loaded) -> Fingerprint:
    """That of the files which were loaded; NotReady when they are not the same any more."""
    try:
        found = fingerprint(loaded.folder, config, loaded.max_tokens)
        changed = stamps(loaded.folder, config) != loaded.stamps
    except (OSError, ValueError) as error:
        raise NotReady(f"model {config.name!r}: {config.source} cannot be read any more: {error}") from error
    if changed:
        raise NotReady(f"model {config.name!r}: {config.source} changed while it was read: load it when it is complete")
    return found


class TorchEngine(Front):
    """One model on one device; several engines share a device through `devices`."""

    def __init__(self, config: ClassifierConfig, devices: Devices) -> None:
        super().__init__(config, devices)
        self._lane: Lane | None = None

    @property
    def failure(self) -> str | None:
        """Why it cannot score now; None when it can."""
        if self._entrance is None or self._lane is None:
            return self._not_ready().detail
        return self._lane.failure

    async def start(self) -> None:
        """Loads the model and runs it once; raises NotReady with the reason when that fails."""
        card, renderer, forward, folder = await asyncio.to_thread(self._load)
        device = self._devices.get(card.device)
        most = self._config.max_batch_tokens or default_batch_tokens(card.device)
        self._lane = device.thread.open(self._config.name, forward, most)
        numerics = f" {forward.layout} {NUMERICS} {transformers.__version__}"
        self._open(card, LaneQueue(self._lane, device), renderer.render, numerics=numerics)
        # raw: the logits are computed here, so no activation can stand behind them
        parity = await check_parity(self, self._config, folder, render=renderer.render, raw=True)
        self._card = replace(card, parity=parity)
        await asyncio.to_thread(release_memory)

    async def close(self) -> None:
        """Finishes what was accepted, then lets the model go."""
        await self._shut()
        self._lane = None

    def _load(self) -> tuple[EngineCard, Renderer, Forward, Path]:
        config = self._config
        loaded = load(config, resolve_device(config.device))
        renderer = Renderer(loaded.tokenizer, config, max_tokens=loaded.max_tokens, pad_token_id=loaded.pad_token_id)
        try:
            ids = loaded.tokenizer(PROBE, verbose=False)["input_ids"][: max(1, loaded.max_tokens - 1)]
            forward = _forward(config, loaded, np.asarray(ids, dtype=np.int32))
        except Exception as error:
            raise NotReady(f"model {config.name!r} loads but fails on its first text: {error}") from error
        card = EngineCard(
            engine="torch",
            labels=loaded.labels,
            fingerprint=_fingerprint(config, loaded),
            dtype=config.dtype,
            device=resolve_device(config.device),
            max_tokens=loaded.max_tokens,
            parameters=loaded.parameters,
        )
        return card, renderer, forward, loaded.folder
