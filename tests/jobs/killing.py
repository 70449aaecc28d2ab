"""A job over real conversations that is killed again and again, beside one that is left alone."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conversations import real_conversations, real_groups
from tests.engine.models import build
from tests.jobs.files import errors, read, write
from tests.process import COMMAND, ServiceProcess, command

BAD_EVERY = 97
GROUPS = 805
TOLERANCE = 1e-4


def real_rows(count: int, folder: Path) -> tuple[Path, list[int]]:
    """A file of so many rows, groups of 16 responses first and then dialogues, and the lines that are no JSON."""
    groups = real_groups(min(GROUPS, count // 24))
    flat = [messages for group in groups for messages in group]
    dialogues = real_conversations(count - len(flat))
    assert len(flat) + len(dialogues) >= count
    rows = [{"id": f"r{i}", "messages": messages} for i, messages in enumerate([*flat, *dialogues][:count])]
    bad = list(range(BAD_EVERY, count, BAD_EVERY))
    lines = [json.dumps(row) if i not in set(bad) else "{not JSON" for i, row in enumerate(rows, 1)]
    return write(folder / "in.jsonl", lines), bad


def ended_when(arguments: Sequence[str | Path], output: Path, rows: int, number: signal.Signals) -> int:
    """Start the job and end it by a signal once so many rows are committed; its exit code."""
    state = output.with_name(f"{output.name}.job") / "state.json"
    rows = max(rows, _committed(state) + 1)
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            if _committed(state) >= rows:
                process.send_signal(number)
                break
            time.sleep(0.02)
        _, told = process.communicate(timeout=120)
    assert process.returncode != 0, f"the job was done before {rows} rows were committed: {told.decode()}"
    return process.returncode


def _committed(state: Path) -> int:
    try:
        return int(json.loads(state.read_text())["scored"])
    except FileNotFoundError:
        return 0


def tiny_toml(folder: Path) -> Path:
    """A configuration with a real model that is small enough to score thousands of conversations in a minute."""
    folder.mkdir(exist_ok=True)
    model = build("thinking", folder / "model")
    file = folder / "service.toml"
    file.write_text(
        f'[server]\nport = 0\n[store]\nurl = "sqlite:///{folder}/store.db"\n'
        f'[[models]]\nname = "tiny"\nsource = "{model}"\ndtype = "float32"\ncompile = false\n'
        'max_tokens = 256\non_too_long = "truncate_left"\n'
        '[[objectives]]\nname = "one"\naggregate = "mean"\n'
        '[[objectives.terms]]\nmodel = "tiny"\ntransform = "identity"\n'
    )
    return file


def check_a_job_that_is_killed(rows: int, folder: Path, *, options: Sequence[str], seed: int, latest: float) -> None:
    """Each id once, error rows listed, and rewards as in a run that nothing disturbed, by a service of its own.

    It is killed at three random points, none after a share `latest` of the rows.
    """
    source, bad = real_rows(rows, folder)
    killed, alone = folder / "killed.jsonl", folder / "alone.jsonl"
    chance = random.Random(seed)
    points = sorted(chance.randint(1, int(latest * rows)) for _ in range(3))
    with ServiceProcess(tiny_toml(folder / "one")) as service:
        line: list[str | Path] = ["score", source, "-o", killed, "--url", service.url, *options]
        codes = [ended_when(line, killed, point, signal.SIGKILL) for point in points]
        assert codes == [-signal.SIGKILL] * 3
        done = command(*line)
    assert done.returncode == 0, done.stderr
    undisturbed = command("score", source, "-o", alone, "-c", tiny_toml(folder / "other"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = {row["id"]: row["reward"] for row in read(alone)}
    found = read(killed)
    assert [row["id"] for row in found] == [f"r{i - 1}" for i in range(1, rows + 1) if i not in set(bad)]
    assert max(abs(row["reward"] - expected[row["id"]]) for row in found) <= TOLERANCE
    assert [row["line"] for row in errors(killed)] == bad == [row["line"] for row in errors(alone)]
    print(f"killed at {points} of {rows} rows; {done.stdout}")
