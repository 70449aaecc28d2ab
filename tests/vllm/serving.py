"""A real vLLM server as a process, and a proxy that spoils what is sent to it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI, Request, Response

from tests.ports import HeldPort

START_S = 600
GONE = (FileNotFoundError, ProcessLookupError)
"""What reading of a process or thread raises that has ended, before and after its file was opened."""
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0-1", "OMP_NUM_THREADS": "2"}


class VllmServer:
    """vLLM's own server of a model folder until the end of the block; `url` is where it listens."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._held = HeldPort()
        self.port = self._held.number
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._log = log

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self._folder)]
        options = ["--runner", "pooling", "--dtype", "bfloat16", "--enforce-eager", "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **ENVIRONMENT}
            )
        return self

    def ready(self) -> str:
        """Waits until it answers; the URL."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return self.url
            except httpx.TransportError:
                threading.Event().wait(0.5)
        raise AssertionError(f"vLLM does not start:\n{self._log.read_text()[-4000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(240)
        self._held.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(*GONE):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def still_running(pids: list[int], within_s: float = 60) -> list[int]:
    """Those that have not ended after a while."""
    until = time.monotonic() + within_s
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < until:
        threading.Event().wait(0.2)
    return left


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except GONE:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def spoiling(url: str, spoil: Callable[[dict[str, Any]], dict[str, Any]]) -> FastAPI:
    """A gateway that changes what `/classify` and `/pooling` are sent."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(path: str, request: Request) -> Response:
        async with httpx.AsyncClient(timeout=60) as client:
            if request.method == "GET":
                answer = await client.get(f"{url}/{path}")
            else:
                answer = await client.post(f"{url}/{path}", json=spoil(await request.json()))
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    return app
