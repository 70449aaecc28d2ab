"""A service with JSON logs and traces on, and the collector that it sends them to."""

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.process import ServiceProcess


class Collector:
    """A collector over HTTP that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def spans(self) -> list[Span]:
        resources = [of_resource for request in self.requests for of_resource in request.resource_spans]
        return [span for one in resources for scope in one.scope_spans for span in scope.spans]

    @property
    def services(self) -> set[str]:
        """Who sent them."""
        resources = [one.resource for request in self.requests for one in request.resource_spans]
        return {a.value.string_value for one in resources for a in one.attributes if a.key == "service.name"}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass(frozen=True)
class Watched:
    """A service process and its collector."""

    service: ServiceProcess
    collector: Collector

    def spans_of(self, trace: str, last: str) -> list[Span]:
        """The spans of a trace once the one that ends last has come."""
        until = time.monotonic() + 30
        while True:
            spans = [span for span in self.collector.spans if span.trace_id.hex() == trace]
            if last in {span.name for span in spans} or time.monotonic() > until:
                return spans
            time.sleep(0.05)
