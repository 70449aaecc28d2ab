"""OpenTelemetry traces: what a collector is sent, and that nothing is imported where they are off."""

import subprocess
import sys

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reward_service.config import parse_config
from reward_service.errors import ConfigError
from reward_service.telemetry import RequestContext, Stage, Traces, open_traces, working_for
from tests.access.serving import until
from tests.telemetry.test_metrics import asked
from tests.telemetry.watched import Watched

MODEL = {"name": "m", "source": "org/m"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER_KIND = 2


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def test_a_request_is_a_trace_with_a_span_for_each_part(watched: Watched) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced"}
    url, body = f"{watched.service.url}/v1/score", asked("one more")
    httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()
    httpx.post(url, json={"objective": "none", "conversations": ["secret"]})
    of_trace = watched.spans_of(TRACE, "POST /v1/score")
    named = {span.name: span for span in of_trace}
    request = named["POST /v1/score"]
    assert (request.kind, request.parent_span_id.hex()) == (SERVER_KIND, PARENT)
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
        "reward_service.request_id": "traced",
    }
    assert {"parse", "look_up", "combine", "serialise"} <= named.keys()
    assert all(named[name].parent_span_id == request.span_id for name in ("parse", "look_up", "combine", "serialise"))
    scores = {attributes(span)["model"]: span for span in of_trace if span.name == "score"}
    assert scores.keys() == {"helpful", "harmless"}
    rendered = [span.parent_span_id for span in of_trace if span.name == "render"]
    assert sorted(rendered) == sorted(span.span_id for span in scores.values())
    until(lambda: f'"trace_id":"{TRACE}"' in watched.service.printed)
    assert watched.collector.services == {"reward-service"}
    assert "secret" not in str(watched.collector.requests)


def test_a_collector_that_is_gone_hinders_nothing() -> None:
    traces = open_traces("http://127.0.0.1:9")
    assert traces is not None
    request = RequestContext("run-1")
    with working_for(request), traces.serving(request, "GET", {}) as span:
        with Stage("render"):
            pass
        traces.answered(span, "GET", "/v1/models", 200)
    traces.close()
    assert request.stages.keys() == {"render"}


def test_of_an_exception_a_span_keeps_the_type_and_not_the_words() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    request, traces = RequestContext("run-1"), Traces(provider, exporter)
    serving = traces.serving(request, "POST", {})
    with pytest.raises(ValueError, match="secret"), working_for(request), serving, Stage("render"):
        raise ValueError("secret")
    told = [span.to_json() for span in exporter.get_finished_spans()]
    traces.close()
    assert len(told) == 2
    assert all('"error.type": "ValueError"' in one and "secret" not in one for one in told)


def test_without_traces_the_sdk_and_its_exporter_are_not_even_imported() -> None:
    script = (
        "import sys\n"
        "from reward_service.telemetry import open_traces\n"
        "import reward_service.cli.main\n"
        "assert open_traces(None) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])\n"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize(("variable", "ends_with"), [("", "1"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "None")])
def test_without_opentelemetry_the_configuration_is_refused_and_the_environment_only_warned_of(
    variable: str, ends_with: str
) -> None:
    endpoint = "None" if variable else "'http://collector:4318'"
    script = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from reward_service.telemetry import open_traces\n"
        f"print(open_traces({endpoint}))\n"
    )
    environment = {"PATH": "/usr/bin:/bin"} | ({variable: "http://collector:4318"} if variable else {})
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert "pip install 'reward-service[traces]'" in done.stderr
    assert ends_with == (done.stdout.strip() or str(done.returncode))


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint: .*'collector:4317' is no URL of a collector"):
        parse_config({"telemetry": {"otlp_endpoint": "collector:4317"}, "models": [MODEL]}, {})
