"""Typed configuration from one TOML file; secrets come from the environment only."""

from reward_service.config.reading import parse_config, read_config
from reward_service.config.schema import (
    BaselineConfig,
    ClassifierConfig,
    Config,
    LimitsConfig,
    ModelConfig,
    ObjectiveConfig,
    ResponseBaseline,
    ScoreCacheConfig,
    ServerConfig,
    StoreConfig,
    StoredBaseline,
    TermConfig,
)

__all__ = [
    "BaselineConfig",
    "ClassifierConfig",
    "Config",
    "LimitsConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "ResponseBaseline",
    "ScoreCacheConfig",
    "ServerConfig",
    "StoreConfig",
    "StoredBaseline",
    "TermConfig",
    "parse_config",
    "read_config",
]
