"""What the OpenAPI document says is what the service does, whatever is sent; tests/endurance does it at full size."""

from pathlib import Path

from tests.access.fuzzing import cases_passed


def test_the_service_keeps_to_its_document(tmp_path: Path) -> None:
    assert cases_passed(tmp_path, "--max-examples", "2", "--generation-deterministic") >= 300
