"""Items in, estimates out; knows no HTTP, no baseline and no objective."""

from collections.abc import Callable

from reward_service.config import ClassifierConfig
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Engine


def _torch(config: ClassifierConfig, devices: Devices) -> Engine:
    from reward_service.engine.torch_engine import TorchEngine  # late: brings torch and transformers

    return TorchEngine(config, devices)


def _vllm(config: ClassifierConfig, devices: Devices) -> Engine:
    from reward_service.engine.vllm_engine import VllmEngine  # late: brings transformers, and vllm when it starts

    return VllmEngine(config, devices)


def _http(config: ClassifierConfig, devices: Devices) -> Engine:
    from reward_service.engine.http_engine import HttpEngine  # late: brings transformers

    return HttpEngine(config, devices)


ENGINES: dict[str, Callable[[ClassifierConfig, Devices], Engine]] = {"torch": _torch, "vllm": _vllm, "http": _http}


def create(config: ClassifierConfig, devices: Devices) -> Engine:
    """The engine that serves a model; it loads in `start`."""
    return ENGINES[config.engine](config, devices)
