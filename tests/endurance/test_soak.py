"""Ten minutes at twice the capacity."""

import json
from pathlib import Path

from tests.overload import quantile, service_toml
from tests.process import ServiceProcess
from tests.soak import soak

SECONDS = 600
TIMEOUT_S = 60.0


async def test_ten_minutes_at_twice_the_capacity(tmp_path: Path) -> None:
    config = service_toml(tmp_path, max_queued_tokens=4_000_000, request_timeout_s=TIMEOUT_S)
    with ServiceProcess(config) as service:
        seen = await soak(service, timeout_s=TIMEOUT_S, warm_s=20, seconds=SECONDS, returning=0.5)
    print(json.dumps(seen.summary()))
    assert {one.status for one in seen.visits} == {200, 429}
    assert all(None not in one.rewards for one in seen.accepted)
    assert quantile(seen.latencies_s, 0.99) < TIMEOUT_S * 2 / 3
    assert max(seen.latencies_s) < TIMEOUT_S
    assert seen.after_mib < 1.1 * seen.before_mib
    assert seen.queued_after == 0
