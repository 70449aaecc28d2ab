"""The peak memory of 4,096 conversations beside that of 256, at 25M parameters: two minutes."""

import json
from pathlib import Path

from benchmarks.memory import measured
from benchmarks.workloads import build


def test_a_request_of_4096_conversations_takes_little_more_memory_than_one_of_256(tmp_path: Path) -> None:
    found = measured(build("25M", tmp_path), run=0)
    print(json.dumps(found))
    assert found["ratio_without_text"] <= 1.2, found
