"""A real Redis server for tests, on a port and in a folder of its own, that can be killed, frozen and filled."""

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.ports import HeldPort

START_LIMIT_S = 60.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisServer:
    """`redis-server` until the end of the block; without options it keeps nothing over its own death.

    With a `sentinel` configuration file it is a sentinel.
    """

    def __init__(
        self,
        folder: Path,
        options: Sequence[str] = (),
        *,
        password: str | None = None,
        sentinel: Path | None = None,
    ) -> None:
        if shutil.which("redis-server") is None:
            pytest.fail("redis-server is not installed; `make redis` installs it")
        self._held = HeldPort()
        self.port = self._held.number
        self._folder = folder
        self._options = [*options, *(("--requirepass", password) if password else ())]
        self._sentinel = sentinel
        self._client = Redis(port=self.port, password=password, socket_timeout=20)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a password."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def shown(self) -> str:
        """How the store names itself in errors."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.launch()
        started = time.monotonic()
        while not self._answers():
            assert time.monotonic() < started + START_LIMIT_S, (self._folder / "redis.log").read_text()
            time.sleep(0.01)

    def launch(self, *options: str) -> None:
        """Start the server and wait for nothing."""
        kind = ["--save", ""] if self._sentinel is None else [str(self._sentinel), "--sentinel"]
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "redis.log").open("ab") as log:
            line = ["redis-server", *kind, *where, *self._options, *options]
            self._process = subprocess.Popen(line, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a crash does."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._client.close()

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def command(self, *arguments: Any) -> Any:
        """The answer to one command."""
        return self._client.execute_command(*arguments)

    def calls(self) -> dict[str, int]:
        """How often each command was called since the last `CONFIG RESETSTAT`, those of scripts included."""
        stats: dict[str, dict[str, int]] = self.command("INFO", "commandstats")
        return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self._folder / "redis.log").read_text())
        try:
            return bool(self.command("PING"))
        except RedisError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self.kill()
        self._client.close()
        self._held.close()
