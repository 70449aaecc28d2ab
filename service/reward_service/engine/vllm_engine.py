"""Scores computed by vLLM in this process: it batches and shares prefixes by itself."""

import asyncio
import functools
import importlib
import itertools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from reward_service.config import ClassifierConfig
from reward_service.engine.admission import Account
from reward_service.engine.devices import Devices
from reward_service.engine.engine import EngineCard, Estimate, ItemError, Priority
from reward_service.engine.fingerprint import fingerprint
from reward_service.engine.front import Front
from reward_service.engine.hosted.description import Description, describe, pooled_prefix
from reward_service.engine.intake import Result
from reward_service.engine.loading import HUB_FILES
from reward_service.engine.parity.check import check_parity
from reward_service.engine.remote import RemoteDevice
from reward_service.engine.rendering import Rendered
from reward_service.errors import EngineFailed, InvalidRequest, NotFinite, NotReady

log = logging.getLogger(__name__)


class VllmEngine(Front):
    """One model in a vLLM engine, which runs in a process that this one starts."""

    def __init__(self, config: ClassifierConfig, devices: Devices) -> None:
        super().__init__(config, devices)
        self._llm: Any = None

    @property
    def failure(self) -> str | None:
        """Why it cannot score now; None when it can."""
        if self._entrance is None:
            return self._not_ready().detail
        return "the vLLM engine has died; restart the service" if self._llm.errored else None

    async def start(self) -> None:
        """Loads the model into vLLM; raises NotReady with the reason when that fails.

        Holds the event loop meanwhile: vLLM ties its sockets to the loop that runs when it is made.
        """
        vllm = _vllm(self._config)
        description = await asyncio.to_thread(describe, self._config, HUB_FILES)
        max_tokens = min(self._config.max_tokens, description.positions or self._config.max_tokens)
        self._llm = self._loaded(vllm, description, max_tokens)
        device = self._devices.remote(f"vLLM of {self._config.name}")
        card = await asyncio.to_thread(self._card_of, description, max_tokens)
        render = description.renderer(self._config, max_tokens).render
        trims = description.tokenizer.cls_token_id is None
        self._open(card, VllmQueue(vllm, self._llm, self._config.name, device, len(card.labels), trims), render)
        parity = await check_parity(self, self._config, description.folder, render=render, raw=True)
        self._card = replace(card, parity=parity)

    async def close(self) -> None:
        """Finishes what was accepted, then ends vLLM's process."""
        await self._shut()
        if self._llm is not None:
            self._llm.shutdown()
        self._llm = None

    def _loaded(self, vllm: Any, description: Description, max_tokens: int) -> Any:
        config = self._config
        batch = {} if config.max_batch_tokens is None else {"max_num_batched_tokens": config.max_batch_tokens}
        try:
            arguments = vllm.AsyncEngineArgs(
                model=str(description.folder),
                runner="pooling",
                pooler_config=vllm.config.PoolerConfig(task="classify", use_activation=False),
                hf_overrides={"head_dtype": "float32"},
                dtype=config.dtype,
                max_model_len=max_tokens,
                trust_remote_code=config.trust_remote_code,
                scheduling_policy="priority",
                enforce_eager=not config.compile,
                enable_log_requests=False,
                **batch,
            )
            return vllm.v1.engine.async_llm.AsyncLLM.from_engine_args(arguments)
        except Exception as error:  # whatever vLLM and its process raise
            raise NotReady(f"model {config.name!r}: vLLM cannot load {config.source}: {error}") from error

    def _card_of(self, description: Description, max_tokens: int) -> EngineCard:
        return EngineCard(
            engine="vllm",
            labels=description.labels,
            fingerprint=fingerprint(description.folder, self._config, max_tokens),
            dtype=self._config.dtype,
            device=str(importlib.import_module("vllm.platforms").current_platform.device_type),
            max_tokens=max_tokens,
        )


class VllmQueue:
    """Each item is a request of vLLM's own; cancelling the answer aborts it."""

    def __init__(self, vllm: Any, llm: Any, model: str, device: RemoteDevice, labels: int, trims: bool) -> None:
        self.model = model
        self._vllm = vllm
        self._llm = llm
        self._device = device
        self._labels = labels
        self._sent: Callable[[Rendered], Rendered] = pooled_prefix if trims else lambda rendered: rendered
        self._numbers = itertools.count()
        self._inside = 0

    @property
    def account(self) -> Account:
        """What may wait or be computed."""
        return self._device.account

    def submit(
        self,
        rendered: Rendered,
        *,
        priority: Priority,
        deadline: float,  # noqa: ARG002
        ahead: int,  # noqa: ARG002
    ) -> "asyncio.Future[Result]":
        """Hands the item to vLLM at once."""
        if not self._inside:
            self._device.started()
        self._inside += 1
        task = asyncio.create_task(self._score(rendered, priority))
        task.add_done_callback(self._left)
        return task

    def together(self) -> AbstractContextManager[object]:
        """vLLM makes its own batches."""
        return nullcontext()

    def shut(self) -> None:
        """Nothing is inside any more."""

    def _left(self, _: "asyncio.Task[Result]") -> None:
        self._inside -= 1

    async def _score(self, rendered: Rendered, priority: Priority) -> Result:
        started, sent = time.monotonic(), self._sent(rendered)
        params = self._vllm.PoolingParams(task="classify", use_activation=False)
        name = f"{self.model}-{next(self._numbers)}"
        prompt = {"type": "token", "prompt_token_ids": sent.ids.tolist()}
        try:
            outputs = [one async for one in self._llm.encode(prompt, params, name, priority=int(priority))]
        except self._vllm.exceptions.VLLMClientError as error:
            return ItemError(InvalidRequest(f"vLLM refuses the conversation: {error}"))
        except Exception as error:
            log.exception("vLLM failed on an item of %d tokens", sent.tokens)
            return ItemError(EngineFailed(f"vLLM failed on this conversation: {type(error).__name__}: {error}"))
        self._device.answered(sent.tokens)
        self._device.note_call(
            self.model,
            items=1,
            tokens=rendered.tokens,
            computed_tokens=sent.tokens,
            seconds=time.monotonic() - started,
        )
        return self._estimate(outputs[-1], rendered, sent, started)

    def _estimate(self, output: Any, rendered: Rendered, sent: Rendered, started: float) -> Result:
        outputs = np.asarray(output.outputs.data.double().cpu().numpy(), dtype=np.float64).reshape(-1)
        counted = len(output.prompt_token_ids)
        if counted != sent.tokens or len(outputs) != self._labels:
            told = f"vLLM counted {counted} tokens of {sent.tokens} and gave {len(outputs)} outputs of {self._labels}"
            return ItemError(EngineFailed(told))
        if not np.isfinite(outputs).all():
            return ItemError(NotFinite(f"the model gave {outputs.tolist()} for this conversation"))
        return Estimate(
            outputs=outputs,
            tokens=rendered.tokens,
            tokens_computed=sent.tokens,
            response_tokens=rendered.response_tokens,
            compute_s=time.monotonic() - started,
        )


@functools.cache
def _imported() -> Any:
    for part in ("vllm.config", "vllm.exceptions", "vllm.v1.engine.async_llm"):
        importlib.import_module(part)
    return importlib.import_module("vllm")


def _vllm(config: ClassifierConfig) -> Any:
    try:
        return _imported()
    except ImportError as error:
        raise NotReady(
            f"model {config.name!r}: engine 'vllm' needs vLLM, which cannot be imported ({error}): install it in an"
            " environment of its own with `pip install 'reward-service[server,vllm]'`"
        ) from error
