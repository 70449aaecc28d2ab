"""What the service says of itself: logs and traces."""

from typing import Literal

from pydantic import field_validator as validates

from reward_service.config.section import Section


class TelemetryConfig(Section):
    """Logs and traces; metrics are always at `/metrics`."""

    log_format: Literal["text", "json"] = "text"
    """`text` for a person, `json` (one object per line) for a log collector; both go to standard error."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below this level are left out."""
    access_log: Literal["off", "requests", "all"] = "requests"
    """One line per request: of none, of all but `/health`, `/ready` and `/metrics`, or of all."""
    otlp_endpoint: str | None = None
    """Collector of OpenTelemetry traces over HTTP, `http://host:4318`; none unless given here or by the environment."""

    @validates("otlp_endpoint")
    @classmethod
    def _is_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"{endpoint!r} is no URL of a collector; valid: http://host:4318 or https://host:4318")
        return endpoint
