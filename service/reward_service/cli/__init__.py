"""The `reward-service` command."""

from reward_service.cli.main import main

__all__ = ["main"]
