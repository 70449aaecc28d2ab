"""`reward-service score` as a person types it."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.main import get_command

from reward_service.cli.main import app
from tests.jobs.files import errors, read, row, write
from tests.jobs.killing import check_a_job_that_is_killed, ended_when
from tests.jobs.large_files import scripted_service
from tests.process import COMMAND, command

IN_SMALL_FILES = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service whose scores stand in the responses."""
    with scripted_service() as url:
        yield url


def test_a_job_over_real_conversations_is_killed_three_times_and_loses_nothing(tmp_path: Path) -> None:
    check_a_job_that_is_killed(1000, tmp_path, options=["--batch", "4", "--concurrency", "1"], seed=1, latest=0.4)


def test_a_signal_ends_a_job_in_good_order(url: str, tmp_path: Path) -> None:
    rows = [row(i, id=str(i)) for i in range(20_000)]
    source, output = write(tmp_path / "in.jsonl", [*rows, "not JSON"]), tmp_path / "out.jsonl"
    line: list[str | Path] = ["score", source, "-o", output, "--url", url, "--batch", "16", "--strict"]
    assert ended_when(line, output, 100, signal.SIGINT) == 128 + signal.SIGINT
    assert ended_when(line, output, 200, signal.SIGTERM) == 128 + signal.SIGTERM
    done = command(*line)
    assert done.returncode == 1, done.stderr
    assert "20,000 of 20,001 rows scored" in done.stdout
    assert "1 rows have no reward (malformed_row: 1)" in done.stdout
    assert "%: " in done.stderr
    assert [one["reward"] for one in read(output)] == list(range(20_000))
    assert [one["line"] for one in errors(output)] == [20_001]


def printed(terminal: int) -> Iterator[str]:
    """What comes out of a terminal until the last process on it has ended."""
    with suppress(OSError):
        while part := os.read(terminal, 65536):
            yield part.decode(errors="replace")


def test_a_terminal_shows_a_bar_with_rates_and_errors(url: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [*(row(i) for i in range(3000)), "not JSON"])
    terminal, end = pty.openpty()
    line = [*COMMAND, "score", str(source), "-o", str(tmp_path / "out.jsonl"), "--url", url]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(line, stderr=end, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(end)
        shown = "".join(printed(terminal))
    os.close(terminal)
    assert process.returncode == 0
    assert "100%" in shown
    assert re.search(r"3,001 rows, [\d,]+/s, [\d,]+ tokens/s, 1 errors", shown)


def test_a_full_disk_stops_a_job_that_then_goes_on(url: str, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [row(i) for i in range(3000)]), tmp_path / "out.jsonl"
    line: list[str | Path] = ["score", source, "-o", output, "--url", url]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    full = subprocess.run(
        [sys.executable, "-c", IN_SMALL_FILES, *COMMAND, *map(str, line)],
        env=unmeasured,  # the coverage of this process would not fit either
        capture_output=True,
        text=True,
        timeout=120,
    )
    done = command(*line)
    assert full.returncode == 1
    assert "cannot be written: " in full.stderr
    assert "run the same command again to go on" in full.stderr
    assert "Traceback" not in full.stderr
    assert done.returncode == 0, done.stderr
    assert [one["reward"] for one in read(output)] == list(range(3000))


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ([], 2, "give either --url (a running service) or --config"),
        (["--url", "http://127.0.0.1:1", "--field", "prompt"], 2, "give FIELD=COLUMN, such as prompt=question"),
        (["--url", "http://127.0.0.1:1", "--field", "promt=q"], 1, "did you mean 'prompt'?"),
        (["--url", "127.0.0.1:1"], 1, "'127.0.0.1:1' is no URL of a service"),
        (["--url", "http://127.0.0.1:1", "--wait", "0.2"], 1, "the service cannot be reached"),
    ],
)
def test_a_job_that_cannot_begin_is_told_in_one_message(
    options: list[str], code: int, told: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [row(1.0)])
    done = command("score", source, "-o", tmp_path / "out.jsonl", *options)
    assert done.returncode == code
    assert told in " ".join(done.stderr.replace("│", "").split())
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_every_option_and_exit_code_stands_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    (score,) = (command for name, command in get_command(app).commands.items() if name == "score")  # type: ignore[attr-defined]
    options = [option for parameter in score.params for option in parameter.opts if option.startswith("-")]
    assert len(options) > 12
    assert [option for option in options if f"| `{option}" not in page and f", `{option}`" not in page] == []


def test_an_objective_that_is_not_there_is_told_with_those_that_are(url: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [row(1.0)])
    done = command("score", source, "-o", tmp_path / "out.jsonl", "--objective", "rew", "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no objective 'rew'; did you mean 'raw'?" in done.stderr
