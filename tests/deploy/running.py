"""The deployment without containers: the Dockerfile's build in a folder, and the processes of docker-compose.yml."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.deploy.reading import DEPLOY, ROOT, stages

VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def build(root: Path, arguments: Mapping[str, str]) -> Path:
    """Carry out the build stage of the Dockerfile under `root` instead of `/`; the virtual environment it makes."""
    environment = {"PATH": f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}", "HOME": str(root)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    folder = root
    for keyword, rest in stages()["build"]:
        if keyword == "ARG":
            name, _, default = rest.partition("=")
            environment[name] = arguments.get(name, default.strip('"'))
        elif keyword == "ENV":
            for name, value in re.findall(r"(\w+)=(\S+)", rest):
                environment[name] = _under(root, VARIABLE.sub(lambda found: environment[found[1]], value))
        elif keyword == "WORKDIR":
            folder = Path(_under(root, rest))
            folder.mkdir(parents=True, exist_ok=True)
        elif keyword == "COPY":
            _copy(rest.split(), folder)
        elif keyword == "RUN":
            command = ["sh", "-ec", _under(root, rest)]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{rest}\n{done.stdout}\n{done.stderr}"
    return root / "opt" / "venv"


def _under(root: Path, text: str) -> str:
    return re.sub(r"(?<![\w.])/(opt|build)\b", rf"{root}/\1", text)


def _copy(names: list[str], folder: Path) -> None:
    *sources, target = names
    for source in sources:
        place = folder / target / (Path(source).name if target.endswith("/") else "")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Part:
    """One process of the deployment until the end of the block; its lines are kept."""

    def __init__(self, command: list[str], environment: Mapping[str, str], works: Callable[[], bool]) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self._works = works
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start it and wait until it works."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until = time.monotonic() + 180
        while not self._works():
            if self._process.poll() is not None or time.monotonic() > until:
                self.ended_by(signal.SIGKILL)
                raise AssertionError("".join(self.lines))
            time.sleep(0.1)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    def ended_by(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        self._process.send_signal(number)
        code = self._process.wait(150)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.ended_by(signal.SIGTERM)


def answers(url: str) -> Callable[[], bool]:
    """Whether a URL answers 200."""

    def ask() -> bool:
        try:
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    return ask


def replica(venv: Path, folder: Path, port: int, environment: Mapping[str, str]) -> Part:
    """A replica of the CPU profile: its configuration with another port and the paths of the virtual environment."""
    package = next(venv.glob("lib/python*/site-packages/reward_service"))
    text = (DEPLOY / "cpu.toml").read_text(encoding="utf-8")
    text = text.replace("port = 8000", f"port = {port}").replace("/opt/demo-models", f"{package}/demo/models")
    file = folder / f"replica-{port}.toml"
    file.write_text(text.replace('host = "0.0.0.0"', 'host = "127.0.0.1"'))
    command = [str(venv / "bin" / "reward-service"), "serve", "--config", str(file)]
    return Part(command, environment, answers(f"http://127.0.0.1:{port}/health"))


def redis(folder: Path, port: int, password: str) -> Part:
    """Redis with the configuration of the deployment."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--requirepass", password]

    def works() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    return Part(["redis-server", str(DEPLOY / "redis.conf"), *options], {}, works)


def balancer(public: int, inside: int, replicas: list[int]) -> Part:
    """HAProxy with the file of the deployment and other addresses."""
    addresses = {f"REPLICA_{i}": f"127.0.0.1:{port}" for i, port in enumerate(replicas, 1)}
    addresses |= {"PUBLIC": f"127.0.0.1:{public}", "INSIDE": f"127.0.0.1:{inside}"}
    command = ["haproxy", "-W", "-db", "-f", str(DEPLOY / "haproxy.cfg")]
    return Part(command, addresses, answers(f"http://127.0.0.1:{inside}/health"))


def prometheus(folder: Path, port: int, key: str, replicas: list[int], inside: int) -> Part:
    """Prometheus with the files of the deployment and other addresses."""
    (folder / "metrics_key").write_text(key)
    text = (DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("/run/secrets/metrics_key", str(folder / "metrics_key")).replace("10s", "5s")
    for i, target in enumerate(replicas, 1):
        text = text.replace(f"replica-{i}:8000", f"127.0.0.1:{target}")
    (folder / "prometheus.yml").write_text(text.replace("balancer:8404", f"127.0.0.1:{inside}"))
    shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)
    options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", *options]
    return Part(command, {}, answers(f"http://127.0.0.1:{port}/-/ready"))
