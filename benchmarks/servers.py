"""Servers to measure, each a process of its own that ends with its block."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 180


@contextmanager
def serving_service(model: Path, *, dtype: str = "bfloat16") -> Iterator[str]:
    """The URL of this service with one model, its raw score the reward, without a score cache."""
    with serving(
        '[store]\nurl = "memory://"\n[score_cache]\nenabled = false\n[limits]\nrequest_timeout_s = 600\n'
        f'[[models]]\nname = "m"\nsource = "{model}"\ndtype = "{dtype}"\nparity = "self"\n'
        '[[objectives]]\nname = "raw"\naggregate = "mean"\n'
        '[[objectives.terms]]\nmodel = "m"\ntransform = "identity"\n'
    ) as url:
        yield url


@contextmanager
def serving(config: str) -> Iterator[str]:
    """The URL of this service with a configuration, in TOML without the table `server`."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f"[server]\nport = {port}\n{config}")
        file.flush()
        with _running([sys.executable, "-m", "reward_service.cli", "serve", "-c", file.name], port, "/ready"):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def serving_plain(model: Path, *, by_length: bool) -> Iterator[str]:
    """The URL of a plain Transformers server."""
    port = free_port()
    extra = ["sorted"] if by_length else []
    with _running([sys.executable, "-m", "benchmarks.plain_server", str(model), str(port), *extra], port, "/docs"):
        yield f"http://127.0.0.1:{port}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def listening(url: str) -> int:
    """The process that listens at a URL, by its sockets."""
    port = f":{int(url.rsplit(':', 1)[1]):04X}"
    tables = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in tables if row[1].endswith(port) and row[3] == "0A"}
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(handle.readlink()) in inodes:
                return int(handle.parts[2])
    raise LookupError(f"nobody listens at {url}")


@contextmanager
def _running(command: Sequence[str], port: int, path: str) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, f"http://127.0.0.1:{port}{path}")
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"no server at {url}")
