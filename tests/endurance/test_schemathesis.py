"""5,000 cases and more, other ones each time; a failure names the calls that show it."""

from pathlib import Path

from tests.access.fuzzing import cases_passed

CASES = 5_000


def test_the_service_keeps_to_its_document_in_5000_cases(tmp_path: Path) -> None:
    assert cases_passed(tmp_path, "--max-examples", "560", "--workers", "2") >= CASES
