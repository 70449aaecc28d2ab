"""File jobs at full size: 20,000 real conversations killed three times, and a 5 GB file in flat memory."""

import random
from pathlib import Path

import pytest

from tests.jobs.killing import check_a_job_that_is_killed
from tests.jobs.large_files import check_flat_memory


@pytest.mark.timeout(3600)
def test_20000_real_conversations_killed_three_times(tmp_path: Path) -> None:
    check_a_job_that_is_killed(20_000, tmp_path, options=[], seed=random.randrange(10**6), latest=0.8)


@pytest.mark.timeout(1800)
def test_the_first_minutes_of_5_gb_take_no_more_memory(tmp_path: Path) -> None:
    check_flat_memory(tmp_path, 5_000_000_000, seconds=180.0)
