"""Eight callers with 4,096 conversations each against a tiny token budget."""

import json
from pathlib import Path

from tests.backlog import backlog
from tests.overload import service_toml
from tests.process import ServiceProcess


async def test_eight_callers_with_4096_conversations_each_all_finish_in_turn(tmp_path: Path) -> None:
    config = service_toml(tmp_path, max_queued_tokens=8192, request_timeout_s=3600)
    with ServiceProcess(config) as service:
        seen = await backlog(service, conversations=4096, words=10, rounds=2)
    print(json.dumps(seen.summary()))
    assert all(one.status == 200 and None not in one.rewards for one in seen.visits)
    assert seen.longest_to_median < 3
    assert all(1 / 3 <= ratio <= 3 for ratio in seen.ratios)
    assert seen.second_mib < 1.1 * seen.first_mib
    assert seen.queued_after == 0
