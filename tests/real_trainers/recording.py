"""What a trainer sends and gets: an HTTP server that stands before the service and keeps a copy of both."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx


@dataclass(frozen=True)
class Exchange:
    """A request of a trainer, and what it was answered."""

    path: str
    request: Any
    status: int
    answer: Any


class Recorder:
    """Hands every POST on to a service until the end of the block; `url` is where it listens."""

    def __init__(self, service_url: str) -> None:
        self.exchanges: list[Exchange] = []
        exchanges = self.exchanges

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name: self.headers[name] for name in ("content-type", "authorization")}
                answer = httpx.post(service_url + self.path, content=body, headers=headers, timeout=60)
                exchanges.append(Exchange(self.path, json.loads(body), answer.status_code, answer.json()))
                self.send_response(answer.status_code)
                for name in ("content-type", "content-length"):
                    self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing: the exchanges are the log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
