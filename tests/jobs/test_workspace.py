"""The folder of a job beside its output."""

from pathlib import Path

import pytest

from reward_service.errors import JobStopped
from reward_service.jobs.workspace import Workspace


@pytest.mark.timeout(10)
def test_an_output_whose_folder_has_vanished_is_told(tmp_path: Path) -> None:
    told = r"out\.jsonl\.job cannot be written: there is no folder .*gone"
    with pytest.raises(JobStopped, match=told), Workspace(tmp_path / "gone" / "out.jsonl"):
        pass
