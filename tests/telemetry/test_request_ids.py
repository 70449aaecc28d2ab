"""A line from deep inside names the request, or the requests, that it is about."""

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from reward_service.engine.devices import Devices
from reward_service.engine.engine import ItemError
from reward_service.telemetry import RequestContext, current_request, working_for
from reward_service.telemetry.logs import JsonFormatter
from tests.engine.fakes import BAD, FakeModel, opened, queued, score, text


@pytest.fixture
def engine_log() -> Iterator[StringIO]:
    """What the engine logs, as JSON lines."""
    stream, logger = StringIO(), logging.getLogger("reward_service.engine")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


async def test_a_failure_on_the_device_names_the_requests_of_its_batch(engine_log: StringIO) -> None:
    devices, model = Devices(max_queued_tokens=100_000), FakeModel()
    intake = opened(devices, model)
    with working_for(RequestContext("first")):
        first = score(intake, text(2, 5))
    with working_for(RequestContext("second")):
        second = score(intake, text(3, BAD))
    await queued(intake, 2)
    model.gate.set()
    results = [*await first, *await second]
    await devices.close()
    assert [isinstance(result, ItemError) for result in results] == [False, True]
    line = json.loads(engine_log.getvalue().splitlines()[0])
    assert line["message"] == "the forward pass of an item of 3 tokens failed"
    assert "second" in line["request_ids"]
    assert set(line["request_ids"]) <= {"first", "second"}
    assert line["exception"].endswith("RuntimeError: bad item")


async def test_what_a_request_starts_works_for_it_and_its_neighbours_do_not() -> None:
    async def seen() -> str | None:
        await asyncio.sleep(0)
        request = await asyncio.to_thread(current_request)
        return None if request is None else request.request_id

    async def serve(name: str) -> list[str | None]:
        with working_for(RequestContext(name)):
            return list(await asyncio.gather(seen(), seen()))

    assert list(await asyncio.gather(serve("a"), serve("b"))) == [["a", "a"], ["b", "b"]]
    assert await seen() is None
