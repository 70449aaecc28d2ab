"""reward-service: reward models behind HTTP, with raw, transformed and aggregated scores."""

__version__ = "0.1.0"
