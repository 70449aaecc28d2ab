"""GRPO while the service is killed, comes back, or comes back as another."""

import asyncio
import logging
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reward_service.client import ExpectationFailed, Unavailable
from reward_service.client.trainers.trl import reward_func
from reward_service.demo import FOLDER
from tests.ports import HeldPort
from tests.process import ServiceProcess, demo_toml
from tests.trainers.trl_runs import AtStep, grpo

GAP_S = 10.0


class Restarted:
    """A service that can be killed and started again at the same URL, with another configuration if need be."""

    def __init__(self, folder: Path) -> None:
        self._port = HeldPort()
        port = self._port.number
        self.url = f"http://127.0.0.1:{port}"
        self._config = demo_toml(folder)
        self.rewrite("port = 0", f"port = {port}")
        self.rewrite('dtype = "float32"', 'dtype = "float32"\nparity = "self"')  # starts sooner
        self._processes = ExitStack()
        self._running: ServiceProcess | None = None
        self._start: threading.Timer | None = None

    def rewrite(self, old: str, new: str) -> None:
        text = self._config.read_text()
        assert old in text
        self._config.write_text(text.replace(old, new))

    def start(self) -> None:
        """Start it unless it runs."""
        self._running = self._running or self._processes.enter_context(ServiceProcess(self._config))

    def kill(self) -> None:
        assert self._running is not None
        self._running.ended_by(signal.SIGKILL)
        self._running = None

    def kill_for(self, seconds: float) -> None:
        """Kill it, and start it that long afterwards."""
        self.kill()
        self._start = threading.Timer(seconds, self.start)
        self._start.start()

    def settle(self) -> None:
        """Wait for the start that `kill_for` left for later."""
        if self._start is not None:
            self._start.join()

    def close(self) -> None:
        self.settle()
        self._processes.close()
        self._port.close()


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    restarted = Restarted(tmp_path_factory.mktemp("service"))
    yield restarted
    restarted.close()


@pytest.fixture
def service(restarted: Restarted) -> Restarted:
    restarted.settle()
    restarted.start()
    return restarted


def test_a_killed_service_stops_the_run_with_one_clear_message(service: Restarted, tmp_path: Path) -> None:
    reward = reward_func(service.url, "both", deadline_s=3)
    with pytest.raises(Unavailable) as caught:
        grpo(reward, tmp_path, steps=20, callbacks=[AtStep(5, service.kill)])
    message = r"POST /v1/score of 8 conversations: no answer in [\d.]+ s and \d+ tries: (\S+): ConnectError \(x \d+\)"
    last = r"; last: \1: ConnectError: All connection attempts failed"
    found = re.fullmatch(message + last, str(caught.value))
    assert found, str(caught.value)
    assert found[1] == service.url
    told = "".join(traceback.format_exception(caught.value))
    assert told.count("Traceback (most recent call last)") == 1
    assert "During handling" not in told


def test_a_run_rides_over_a_gap_and_says_what_it_waits_for(
    service: Restarted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[float] = []
    clock = [AtStep(step, lambda: ends.append(time.monotonic())) for step in (5, 6)]
    reward = reward_func(service.url, "both", log_every_s=2)
    with caplog.at_level(logging.WARNING, "reward_service.client"):
        log = grpo(reward, tmp_path, steps=8, callbacks=[*clock, AtStep(5, lambda: service.kill_for(GAP_S))])
    assert ends[1] - ends[0] >= GAP_S
    assert len(log) == 8
    assert all(entry["reward"] < 0 and entry["both/missing"] == 0 for entry in log)
    assert f"POST /v1/score of 8 conversations: {service.url}: ConnectError" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ('transform = "log_sigmoid"', 'transform = "log_sigmoid"\nclip = [-20.0, 0.0]', "objective_hash"),
        (f"{FOLDER}/models/harmless", f"{FOLDER}/models/helpful", "models.harmless"),
    ],
    ids=["objective", "weights"],
)
def test_a_service_that_comes_back_as_another_stops_the_run(
    service: Restarted, tmp_path: Path, old: str, new: str, differs: str
) -> None:
    def come_back_as_another() -> None:
        service.kill()
        service.rewrite(old, new)
        service.start()

    with pytest.raises(ExpectationFailed, match=differs):
        grpo(reward_func(service.url, "both"), tmp_path, steps=4, callbacks=[AtStep(2, come_back_as_another)])
    (reward,) = asyncio.run(reward_func(service.url, "both")(prompts=["Hello"], completions=["Hi"]))
    assert reward < 0, "another run may begin"
