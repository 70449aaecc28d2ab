"""Answers that nobody takes end the connection; slow readers get theirs; bodies share a bounded room."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from reward_service.api.limits import Limits
from tests.access.configs import with_limits
from tests.access.serving import GOOD, Served, Wire, request, score_request, served, until

LARGE = {
    "conversations": [{**GOOD, "metadata": {"i": i}} for i in range(2_000)],
}
SMALL_BUFFER = 4_096
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"


@pytest.fixture
def service() -> Iterator[Served]:
    limits = with_limits(send_timeout_s=0.5, max_request_bytes=1_000_000, max_held_bytes=1_000_000, body_timeout_s=30)
    with served(limits) as running:
        yield running


def test_a_caller_that_takes_nothing_of_its_answers_is_cut_off(service: Served) -> None:
    with Wire(service.port, receive_buffer=SMALL_BUFFER) as wire:
        for _ in range(15):
            wire.pour(request("POST", "/v1/score", LARGE))
        until(lambda: service.connections() == 0)


def test_a_caller_that_closes_its_half_and_takes_nothing_is_cut_off(service: Served) -> None:
    with Wire(service.port, receive_buffer=SMALL_BUFFER) as wire:
        wire.pour(
            request("POST", "/v1/score", LARGE) * 14 + request("POST", "/v1/score", LARGE, {"connection": "close"})
        )
        until(lambda: service.connections() == 0)


def test_a_slow_caller_gets_the_whole_answer(service: Served) -> None:
    with Wire(service.port, receive_buffer=SMALL_BUFFER) as wire:
        wire.send(request("POST", "/v1/score", LARGE) * 10)
        for _ in range(10):
            time.sleep(0.15)
            reply = wire.reply()
            assert (reply.status, len(reply.json["scores"])) == (200, 2_000)
        time.sleep(0.7)
        wire.send(score_request())
        assert wire.reply().status == 200


def held_bytes(service: Served) -> int:
    """Of all bodies that the service has taken in and not answered."""
    layer: Any = service.server.config.loaded_app.middleware_stack  # None until the first request
    while layer is not None and not isinstance(layer, Limits):
        layer = getattr(layer, "app", None) or getattr(layer, "_app", None)
    return 0 if layer is None else layer._held


def test_bodies_share_a_room_and_leave_it_when_they_are_answered(service: Served) -> None:
    body = b'{"conversations": []}'.ljust(600_000)
    announced = HEAD + b"content-length: 600000\r\n\r\n"
    with Wire(service.port) as first, Wire(service.port) as second:
        first.send(announced + body[:-1])
        until(lambda: held_bytes(service) == len(body) - 1)
        second.send(announced + body)
        refused = second.reply()
        assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (429, "overloaded", "1")
        assert "limits.max_held_bytes" in refused.json["detail"]
        first.send(body[-1:])
        assert first.reply().status == 200
    for _ in range(3):
        with Wire(service.port) as again:
            again.send(announced + body)
            assert again.reply().status == 200


def test_a_caller_that_leaves_in_the_middle_of_its_body_gives_the_room_back(service: Served) -> None:
    announced = HEAD + b"content-length: 900000\r\n\r\n"
    for _ in range(3):
        with Wire(service.port) as leaving:
            leaving.send(announced + b"x" * 800_000)
        until(lambda: service.connections() == 0)
    with Wire(service.port) as wire:
        wire.send(announced + b'{"conversations": []}'.ljust(900_000))
        assert wire.reply().status == 200
