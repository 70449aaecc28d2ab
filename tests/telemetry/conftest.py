"""One real service for all tests that only look at what it says of itself."""

from collections.abc import Iterator

import pytest

from tests.process import ServiceProcess, demo_toml
from tests.telemetry.watched import Collector, Watched


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The bundled models, JSON logs, traces that are sent at once."""
    collector, file = Collector(), demo_toml(tmp_path_factory.mktemp("watched"))
    file.write_text(
        f'{file.read_text()}[telemetry]\nlog_format = "json"\notlp_endpoint = "{collector.url}"\naccess_log = "all"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with ServiceProcess(file) as service:
            yield Watched(service, collector)
    collector.close()
