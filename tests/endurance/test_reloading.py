"""A model reloaded a hundred times under load."""

from pathlib import Path

import httpx

from tests.overload import resident_mib
from tests.process import ServiceProcess
from tests.reload.conftest import MEMORY, MODEL, OBJECTIVE, point
from tests.reload.swapping import swapped_under_load
from tests.reload.test_reloading import DEMO

RELOADS = 100
LEFT_MIB = 2.0
"""What a reload of a model of 4 MiB may leave: the allocator's gaps and the caches of native libraries."""


async def test_a_hundred_reloads_under_load(tmp_path: Path) -> None:
    link = point(tmp_path / "model", DEMO[0])
    (tmp_path / "service.toml").write_text("[server]\nport = 0\n" + MEMORY + MODEL.format(source=link) + OBJECTIVE)
    with ServiceProcess(tmp_path / "service.toml") as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
            await swapped_under_load(http, link, DEMO, reloads=10)
            before = resident_mib(service.pid)
            seen = await swapped_under_load(http, link, DEMO, reloads=RELOADS)
            after = resident_mib(service.pid)
    print(f"answers by fingerprint {sorted(seen.values())}, memory {before:.0f} MiB before and {after:.0f} after")
    assert len(seen) == 2
    assert after < before + RELOADS * LEFT_MIB
