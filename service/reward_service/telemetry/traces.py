"""OpenTelemetry traces, where they are asked for: nothing is imported and nothing costs time where they are not."""

import importlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reward_service import __version__
from reward_service.errors import NotReady
from reward_service.telemetry.context import RequestContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

ENVIRONMENT = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
INSTALL = "traces need OpenTelemetry: pip install 'reward-service[traces]'"
LAST_SPANS_S = 3.0
SPANS_PATH = "/v1/traces"
NOTHING: Mapping[str, Any] = {}


class Traces:
    """The spans of one service, sent by its provider."""

    def __init__(self, provider: "TracerProvider", exporter: "SpanExporter") -> None:
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("reward_service", __version__)
        self._api = importlib.import_module("opentelemetry.trace")
        propagation = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
        self._propagator = propagation.TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any] = NOTHING, **how: Any) -> Iterator[Any]:
        """A span under the present one; of an exception it keeps the type, not the words: they may be a caller's."""
        how |= {"record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span(name, attributes=attributes, **how) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._api.StatusCode.ERROR)
                raise

    @contextmanager
    def serving(self, request: RequestContext, method: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The span of a whole request; it continues the trace that a `traceparent` header names."""
        parent = self._propagator.extract({name: headers[name] for name in self._propagator.fields if name in headers})
        attributes = {"http.request.method": method, "reward_service.request_id": request.request_id}
        with self.span(method, attributes, context=parent, kind=self._api.SpanKind.SERVER) as span:
            request.tracer = self
            request.trace_id = self._api.format_trace_id(span.get_span_context().trace_id)
            yield span

    def answered(self, span: Any, method: str, route: str, status: int) -> None:
        """Note how a request went, on its span."""
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            span.set_status(self._api.StatusCode.ERROR)

    def close(self) -> None:
        """Send what is left, for `LAST_SPANS_S` at most. Blocking."""
        sending = threading.Thread(target=self._provider.shutdown)
        sending.start()
        sending.join(LAST_SPANS_S)
        if sending.is_alive():
            self._exporter.shutdown()
        sending.join()


def open_traces(endpoint: str | None) -> Traces | None:
    """Traces to a collector at `endpoint` (`http://host:4318`), or where OpenTelemetry's own variables say; else None.

    Raises NotReady when the configuration asks for them and OpenTelemetry is not installed.
    """
    if endpoint is None and not any(os.environ.get(name) for name in ENVIRONMENT):
        return None
    try:
        return _traces(endpoint)
    except ImportError as error:
        if endpoint is None:
            log.warning("%s is set, but %s", " or ".join(ENVIRONMENT), INSTALL)
            return None
        raise NotReady(f"telemetry.otlp_endpoint: {INSTALL} ({error})") from error


def _traces(endpoint: str | None) -> Traces:
    sdk, export, resources, otlp = (
        importlib.import_module(f"opentelemetry.{name}")
        for name in ("sdk.trace", "sdk.trace.export", "sdk.resources", "exporter.otlp.proto.http.trace_exporter")
    )
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "reward-service"}
    exporter = otlp.OTLPSpanExporter(endpoint=None if endpoint is None else endpoint.rstrip("/") + SPANS_PATH)
    provider: TracerProvider = sdk.TracerProvider(resource=resources.Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return Traces(provider, exporter)
