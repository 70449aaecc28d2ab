"""The example is the first thing that a user of TRL runs."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "trl_grpo.py"


def test_the_example_starts_the_demo_trains_and_says_where_its_numbers_came_from() -> None:
    command = [sys.executable, str(EXAMPLE), "--demo", "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    told = re.sub(r"waiting \d+ s for .*\n", "", done.stderr)  # a busy machine is no warning here
    assert (done.returncode, told) == (0, "")
    header, *steps = done.stdout.split("\n\n")[0].splitlines()
    assert header.split() == ["step", "reward"] + [
        f"{term}/{number}" for term in ("harmless", "helpful") for number in ("raw", "transformed")
    ]
    assert [row.split()[0] for row in steps] == ["1", "2", "3"]
    for row in steps:
        _, reward, _, harmless, _, helpful = map(float, row.split())
        assert abs(reward - harmless - helpful) < 0.002
    assert len(re.findall(r"helpful: raw .* - baseline .* \(prompt\) > transformed -", done.stdout)) == 8
    assert re.search(
        r"objective helpful-and-harmless sha256:\w+\n  helpful: sha256:\w+ \(float32, torch\)", done.stdout
    )
