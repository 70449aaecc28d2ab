"""What one rank without rewards does to the other: docs/failing-ranks.md says what is seen here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process import ServiceProcess
from tests.trainers.rank import GROUP_TIMEOUT_S

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
PAGE = Path(__file__).parents[2] / "docs" / "failing-ranks.md"
Running = Iterator[subprocess.Popen[str]]


def started(url: str, *arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "REWARD_SERVICE_URL": url, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def torchrun(live_service: ServiceProcess) -> Running:
    """Two ranks under torchrun; started with the others, since most of the time is the import of torch."""
    with started(live_service.url, *TORCHRUN, "tests.trainers.rank", "raise", "end") as process:
        yield process


@pytest.fixture(scope="module")
def saw(
    torchrun: subprocess.Popen[str], live_service: ServiceProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What the ranks without a launcher saw, by the client's `on_failure`."""
    with started(live_service.url, "tests.trainers.rank", tmp_path_factory.mktemp("ranks")) as process:
        out, errors = process.communicate(timeout=500)
    seen = [json.loads(line) for line in out.splitlines()]
    assert seen, errors
    return {
        how: sorted((one for one in seen if one["how"] == how), key=lambda one: one["rank"])
        for how in ("none", "raise")
    }


def test_a_rank_with_none_takes_the_step_with_the_others(saw: dict[str, list[dict[str, Any]]]) -> None:
    assert [one["saw"] for one in saw["none"]] == ["the rewards of all"] * 2
    assert all(one["rewards"].endswith(", [nan, nan]]") for one in saw["none"])


def test_a_rank_that_raises_and_stays_holds_the_other_until_the_groups_timeout(
    saw: dict[str, list[dict[str, Any]]],
) -> None:
    (alone,) = saw["raise"]
    assert (alone["rank"], alone["rewards"]) == (0, "[]")
    assert "Timed out waiting" in alone["saw"]
    assert alone["waited_s"] >= 0.9 * GROUP_TIMEOUT_S


def test_a_rank_that_raises_ends_the_other_and_the_run(torchrun: subprocess.Popen[str]) -> None:
    out, errors = torchrun.communicate(timeout=500)
    assert torchrun.returncode == 1
    assert "Unavailable: POST /v1/score of 2 conversations: no answer in" in errors
    assert "rank      : 1 (local_rank: 1)" in errors.partition("Root Cause")[2]
    for line in out.splitlines():  # none where the launcher came first
        assert "Connection closed by peer" in json.loads(line)["saw"]


def test_the_python_of_the_page_runs(live_service: ServiceProcess) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("http://127.0.0.1:8000", live_service.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[-\d\.\d+\]\n", done.stdout)
