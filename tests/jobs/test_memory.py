"""A job takes no more memory for a large file than for a small one."""

from pathlib import Path

from tests.jobs.large_files import check_flat_memory


def test_memory_is_flat_while_a_file_is_scored(tmp_path: Path) -> None:
    check_flat_memory(tmp_path, 100_000_000, seconds=6.0)
