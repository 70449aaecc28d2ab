"""Processes that measure: each reads lines of JSON and answers each with one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARK = "RESULT "


class Worker:
    """A process on the other end of a pipe."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, question: Mapping[str, Any] | None = None) -> Any:
        """The answer to a question; without one, what the process says first."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if question is not None:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :])
        raise RuntimeError(f"a worker ended with {self._process.wait()}")


@contextmanager
def working(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """A worker that is ready; it ends with the block."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    worker = Worker(process)
    try:
        worker.ask()
        yield worker
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def answer_all(answer: Callable[[dict[str, Any]], Any]) -> None:
    """The other side: says that it is ready, then answers until nobody asks any more."""
    print(MARK + json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(MARK + json.dumps(answer(json.loads(line))), flush=True)
