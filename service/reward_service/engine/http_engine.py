"""Scores of a model that other servers host: vLLM, SGLang, TEI or another reward-service."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace

import httpx

from reward_service.config import ClassifierConfig
from reward_service.engine.devices import Devices
from reward_service.engine.engine import EngineCard, Item
from reward_service.engine.front import Front
from reward_service.engine.hosted.description import Description, Packing, describe
from reward_service.engine.hosted.dispatch import Dispatcher
from reward_service.engine.hosted.fleet import MOST_CALLS, Fleet
from reward_service.engine.hosted.link import Link
from reward_service.engine.hosted.observed import observed_fingerprint
from reward_service.engine.hosted.protocol import HostedProtocol, Outgoing
from reward_service.engine.hosted.reward_service import RewardServiceProtocol
from reward_service.engine.hosted.server import Server, Verified
from reward_service.engine.hosted.sglang import SglangProtocol
from reward_service.engine.hosted.tei import TeiProtocol
from reward_service.engine.hosted.vllm import VllmProtocol
from reward_service.engine.parity.check import check_parity
from reward_service.engine.parity.golden import golden_set
from reward_service.errors import NotReady, ServiceError

PROTOCOLS: dict[str, HostedProtocol] = {
    "vllm": VllmProtocol(),
    "sglang": SglangProtocol(),
    "tei": TeiProtocol(),
    "reward-service": RewardServiceProtocol(),
}


class HttpEngine(Front):
    """One model on one server or several; the conversations are rendered here, and the servers must count the same
    tokens."""

    def __init__(self, config: ClassifierConfig, devices: Devices) -> None:
        super().__init__(config, devices)
        self._client: httpx.AsyncClient | None = None
        self._fleet: Fleet | None = None

    @property
    def failure(self) -> str | None:
        """Why it cannot score now; None when it can."""
        return self._fleet.failure if self._entrance is not None and self._fleet else self._not_ready().detail

    async def start(self) -> None:
        """Verifies the servers; raises NotReady with what each of them showed when none can be used."""
        config, protocol = self._config, PROTOCOLS[str(self._config.protocol)]
        description = await asyncio.to_thread(describe, config)
        packing = Packing(protocol, description, description.renderer(config, config.max_tokens))
        golden = await asyncio.to_thread(golden_outgoing, packing)
        device = self._devices.remote(f"servers of {config.name}")
        self._fleet = Fleet(config.name, self._servers(protocol, description), golden, config.dtype)
        dispatcher = Dispatcher(self._fleet, device)
        verified = await self._fleet.start()
        card = self._card_of(description, verified)
        render = Packing(protocol, description, description.renderer(config, card.max_tokens)).render
        self._open(card, dispatcher, render)
        parity = await check_parity(self, config, description.folder, render=render, raw=verified.proven)
        self._card = replace(card, parity=parity)

    async def close(self) -> None:
        """Finishes what was accepted, then leaves the servers."""
        await self._shut()
        if self._fleet is not None:
            await self._fleet.close()
        if self._client is not None:
            await self._client.aclose()
        self._client = None

    def _servers(self, protocol: HostedProtocol, description: Description) -> list[Server]:
        config = self._config
        key = os.environ.get(config.api_key_env) if config.api_key_env else None
        if config.api_key_env and not key:
            raise NotReady(f"model {config.name!r}: api_key_env: {config.api_key_env} is not set in the environment")
        limits = httpx.Limits(
            max_connections=(MOST_CALLS + 2) * len(config.urls), max_keepalive_connections=MOST_CALLS * len(config.urls)
        )
        self._client = httpx.AsyncClient(limits=limits)
        return [
            Server(Link(self._client, url, key), protocol, description.labels, config.served_name)
            for url in config.urls
        ]

    def _card_of(self, description: Description, verified: Verified) -> EngineCard:
        config = self._config
        max_tokens = min(config.max_tokens, verified.identity.max_tokens or config.max_tokens)
        return EngineCard(
            engine="http",
            labels=description.labels,
            fingerprint=observed_fingerprint(description, config, verified, max_tokens),
            dtype=config.dtype,
            device=f"{config.protocol}: {', '.join(config.urls)}",
            max_tokens=max_tokens,
        )


def golden_outgoing(packing: Packing) -> Sequence[Outgoing]:
    """Blocking: the golden conversations as they are sent, in the first form that the model's template takes."""
    sent = [_first_form(packing, golden.forms) for golden in golden_set()]
    found = [one for one in sent if one is not None]
    if not found:
        raise NotReady("none of the golden conversations can be rendered for this model")
    return found


def _first_form(packing: Packing, forms: Sequence[Item]) -> Outgoing | None:
    for form in forms:
        try:
            return packing.render(form).outgoing
        except ServiceError:
            continue
    return None
