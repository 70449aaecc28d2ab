"""`reward-service` as a process of its own."""

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from reward_service.demo import FOLDER, MODELS

COMMAND = [sys.executable, "-m", "reward_service.cli"]


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    line = [*COMMAND, *(str(argument) for argument in arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=500)


def demo_toml(folder: Path) -> Path:
    """A configuration file with the bundled models and a SQLite store in `folder`."""
    models = "".join(
        f'[[models]]\nname = "{name}"\nsource = "{FOLDER}/models/{name}"\ndtype = "float32"\n' for name in MODELS
    )
    terms = "".join(f'[[objectives.terms]]\nmodel = "{name}"\ntransform = "log_sigmoid"\n' for name in MODELS)
    file = folder / "service.toml"
    file.write_text(
        f'[server]\nport = 0\n[store]\nurl = "sqlite:///{folder}/store.db"\n'
        f'{models}[[objectives]]\nname = "both"\naggregate = "and"\n{terms}'
    )
    return file


class ServiceProcess:
    """`reward-service serve` until the end of the block; `url` is where it listens."""

    def __init__(self, config: Path, python: str | Path = sys.executable) -> None:
        self._arguments = [str(python), *COMMAND[1:], "serve", "-c", str(config)]
        self._lines: list[str] = []
        self._listens_or_ended = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._listens_or_ended.wait()
        assert self.url, self.printed
        return self

    def _read(self) -> None:
        """Until the end: a process whose lines nobody reads stands still."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if found := re.search(r'serving on (http://[^\s"]+)', line):
                self.url = found[1]
                self._listens_or_ended.set()
        self._listens_or_ended.set()

    @property
    def printed(self) -> str:
        """All that it has printed until now, logs too."""
        return "".join(self._lines)

    def ended_by(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        self._process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait(30)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended_by(signal.SIGTERM)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
