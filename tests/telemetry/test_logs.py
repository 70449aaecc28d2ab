"""Log lines: one form, one request id, and nothing that a caller has sent."""

import hashlib
import io
import json
import logging
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from reward_service.telemetry import ACCESS, configure_logs
from tests.conftest import ROOT, Start
from tests.scripted import ScriptedEngine
from tests.telemetry.test_metrics import CONFIG, asked, value
from tests.telemetry.watched import Watched

SECRET = "what the caller wrote"
TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go; the process's own handlers are back afterwards."""
    root = logging.root
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    """The JSON lines until now."""
    configure_logs("json", "info", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_request_has_one_line_that_says_how_it_went(start: Start, lines: Lines) -> None:
    async with start(CONFIG) as running:
        await running.http.post("/v1/score", json=asked("1", "2"), headers={"x-request-id": "run-7"})
        await running.http.get("/v1/models/none", headers={"x-request-id": "run-8"})
    served, missing = (line for line in lines() if line["logger"] == ACCESS)
    assert re.fullmatch(TIME, served["time"])
    assert (served["level"], served["message"]) == ("info", "POST /v1/score 200")
    assert (served["method"], served["route"], served["status"]) == ("POST", "/v1/score", 200)
    assert (served["request_id"], served["conversations"], served["tokens"]) == ("run-7", 2, 40)
    assert served["milliseconds"] > served["stages_ms"]["combine"] > 0
    assert (missing["request_id"], missing["route"], missing["status"]) == ("run-8", "/v1/models/{name}", 404)
    assert "tokens" not in missing


async def test_the_key_of_a_request_is_named_and_never_shown(start: Start, stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    digests = {name: hashlib.sha256(f"{name}-key".encode()).hexdigest() for name in ("trainer", "watcher")}
    keys = "".join(
        f'[[api_keys]]\nname = "{name}"\nsha256 = "{digests[name]}"\nscopes = ["{scope}"]\n'
        for name, scope in (("trainer", "score"), ("watcher", "metrics"))
    )
    async with start(CONFIG + keys) as running:
        for key in ("trainer-key", "another-key"):
            await running.http.post("/v1/score", json=asked("1"), headers={"authorization": f"Bearer {key}"})
        watcher = {"authorization": "Bearer watcher-key"}
        metrics = (await running.http.get("/metrics", headers=watcher)).text
    served = [json.loads(line) for line in stream.getvalue().splitlines() if ACCESS in line]
    assert [(line.get("key"), line["status"]) for line in served] == [("trainer", 200), (None, 401)]
    assert "-key" not in stream.getvalue() + metrics
    assert value(metrics, "reward_service_key_requests_total", key="trainer") == 1
    assert value(metrics, "reward_service_errors_total", code="unauthorized") == 1


@pytest.mark.parametrize(("access_log", "count"), [("off", 0), ("requests", 1), ("all", 4)])
async def test_probes_are_left_out_unless_all_is_asked_for(
    start: Start, lines: Lines, access_log: str, count: int
) -> None:
    async with start(f'{CONFIG}[telemetry]\naccess_log = "{access_log}"\n') as running:
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            assert (await running.http.get(path)).status_code == 200
    assert len([line for line in lines() if line["logger"] == ACCESS]) == count


async def test_nothing_that_a_caller_sends_is_logged(start: Start, stream: io.StringIO) -> None:
    configure_logs("json", "debug", stream)
    engine = ScriptedEngine("helpful")
    async with start(CONFIG, helpful=engine) as running:
        params = {"model": "helpful", "policy": "sft", "prompt": SECRET}
        headers = {"authorization": f"Bearer {SECRET}"}
        await running.http.get("/v1/baselines", params=params, headers=headers)
        await running.http.get(f"/{SECRET}")
        await running.http.post("/v1/score", json={"conversations": [{"prompt": SECRET, "response": "1"}, SECRET]})
        await running.http.post("/v1/score", content=SECRET)
    printed = stream.getvalue()
    assert printed.count('"logger":"reward_service.access"') == 4
    assert "caller" not in printed


async def test_an_unexpected_error_is_one_line_with_its_trace_and_the_id_of_its_request(
    start: Start, lines: Lines
) -> None:
    engine = ScriptedEngine("helpful")
    engine.raises = ZeroDivisionError("a bug")
    async with start(CONFIG, helpful=engine) as running:
        answer = await running.http.post("/v1/score", json=asked("1"), headers={"x-request-id": "run-9"})
    failed = next(line for line in lines() if "exception" in line)
    served = next(line for line in lines() if line["logger"] == ACCESS)
    assert answer.status_code == 500
    assert failed["request_id"] == served["request_id"] == "run-9"
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ZeroDivisionError: a bug")
    assert (served["level"], served["status"]) == ("warning", 500)


def test_lines_of_libraries_and_warnings_take_the_same_form(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("httpx").info("HTTP Request: GET http://server/health")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logs_again_for_this_filter()
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    logging.getLogger("reward_service.engine").debug("below the level")
    told = [(line["logger"], line["level"]) for line in lines()]
    assert told == [("uvicorn.error", "warning"), ("py.warnings", "warning")]


def test_a_uvicorn_that_ran_before_in_this_process_leaves_no_trace_on_the_form(stream: io.StringIO) -> None:
    uvicorn.Config("", log_level="error")
    configure_logs("json", "info", stream)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).warning("Invalid HTTP request received.")
        assert logging.getLogger(name).handlers == []
    told = [json.loads(line)["logger"] for line in stream.getvalue().splitlines()]
    assert told == ["uvicorn", "uvicorn.error", "uvicorn.access"]


@pytest.mark.parametrize("text", ["good", "bad \udcff"])
def test_a_number_that_json_does_not_know_is_null(stream: io.StringIO, text: str) -> None:
    configure_logs("json", "info", stream)
    logging.getLogger("reward_service.engine").info(text, extra={"raw": [math.nan, 1.5, -math.inf], "loss": math.inf})
    line = json.loads(stream.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (line["message"], line["raw"], line["loss"]) == (text, [None, 1.5, None], None)


def configure_logs_again_for_this_filter() -> None:
    """`catch_warnings` puts its own hook in the place of that of logging."""
    logging.captureWarnings(False)
    logging.captureWarnings(True)


def test_text_lines_are_for_people(stream: io.StringIO) -> None:
    configure_logs("text", "warning", stream)
    log = logging.getLogger("reward_service.engine")
    log.info("not shown")
    try:
        raise OSError("the device is gone")
    except OSError:
        log.exception("a batch of model %s failed", "helpful", extra={"request_ids": ["a", "b"]})
    first, *trace = stream.getvalue().splitlines()
    assert re.fullmatch(
        rf'{TIME} ERROR   reward_service\.engine a batch of model helpful failed request_ids=\["a", "b"\]', first
    )
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "OSError: the device is gone"


def test_every_line_of_a_service_is_json_and_as_documented(watched: Watched) -> None:
    url = watched.service.url
    httpx.post(f"{url}/v1/score", json=asked("hello"), headers={"x-request-id": "logged"}, timeout=60)
    httpx.get(f"{url}/health", headers={"x-request-id": "after"})
    while '"request_id":"after"' not in watched.service.printed:
        time.sleep(0.01)
    told = [json.loads(line) for line in watched.service.printed.splitlines()]
    assert told[0]["message"] == f"serving on {url}"
    line = next(line for line in told if line.get("request_id") == "logged")
    assert line["message"] == "POST /v1/score 200"
    assert line["stages_ms"].keys() >= {"parse", "admit", "render", "queue", "compute", "combine", "serialise"}
    page = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    shown = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert line.keys() | {"key"} == shown.keys() | {"trace_id"}
    assert shown["stages_ms"].keys() <= line["stages_ms"].keys()
    assert all(f"`{stage}`" in page for stage in line["stages_ms"])
