"""Typed configuration from one TOML file; secrets come from the environment only."""

from reward_service.config.access import ApiKeyConfig, LimitsConfig, ServerConfig
from reward_service.config.observing import TelemetryConfig
from reward_service.config.reading import parse_config, read_config
from reward_service.config.schema import (
    BaselineConfig,
    ClassifierConfig,
    Config,
    InputMode,
    ModelConfig,
    ObjectiveConfig,
    ResponseBaseline,
    ScoreCacheConfig,
    StoredBaseline,
    TermConfig,
)
from reward_service.config.storing import StoreConfig

__all__ = [
    "ApiKeyConfig",
    "BaselineConfig",
    "ClassifierConfig",
    "Config",
    "InputMode",
    "LimitsConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "ResponseBaseline",
    "ScoreCacheConfig",
    "ServerConfig",
    "StoreConfig",
    "StoredBaseline",
    "TelemetryConfig",
    "TermConfig",
    "parse_config",
    "read_config",
]
