"""What the service says of itself: metrics, logs and traces; nothing global but the request that code works for."""

from reward_service.telemetry.context import RequestContext, Span, Stage, current_request, working_for
from reward_service.telemetry.logs import ACCESS, configure_logs
from reward_service.telemetry.metrics import Metrics, ModelState
from reward_service.telemetry.traces import Traces, open_traces

__all__ = [
    "ACCESS",
    "Metrics",
    "ModelState",
    "RequestContext",
    "Span",
    "Stage",
    "Traces",
    "configure_logs",
    "current_request",
    "open_traces",
    "working_for",
]
