"""Requests sent ahead on one connection: answered in order, and what was accepted is answered whatever follows it."""

from collections.abc import Iterator

import pytest

from tests.access.configs import with_limits
from tests.access.serving import GOOD, Served, Wire, request, score_request, served, until

HEALTH = request("GET", "/health")


@pytest.fixture
def service() -> Iterator[Served]:
    with served(with_limits(header_timeout_s=30, body_timeout_s=30)) as running:
        yield running


def in_flight(service: Served, wire: Wire) -> None:
    """Sends a request whose answer waits for `service.open()`."""
    service.shut()
    wire.send(score_request())
    until(lambda: len(service.engines["m"].calls) == 1)


def test_answers_come_in_the_order_of_the_requests(service: Served) -> None:
    with Wire(service.port) as wire:
        wire.send(HEALTH + score_request() + request("GET", "/nothing") + HEALTH)
        assert [wire.reply().status for _ in range(4)] == [200, 200, 404, 200]


def test_only_so_many_requests_may_be_sent_ahead(service: Served) -> None:
    with Wire(service.port) as wire:
        in_flight(service, wire)
        wire.send(HEALTH * 5_000)
        until(service.refuses)
        service.open()
        assert [wire.reply().status for _ in range(17)] == [200] * 17
        assert wire.closed()


@pytest.mark.parametrize(
    "junk", [b"\x00\x01\x02" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\nx: " + b"x" * 300_000]
)
def test_an_accepted_request_is_answered_whatever_follows_it(junk: bytes, service: Served) -> None:
    with Wire(service.port) as wire:
        in_flight(service, wire)
        wire.send(junk)
        until(service.refuses)
        service.open()
        assert wire.reply().json["scores"][0]["reward"] == float(GOOD["response"])
        assert wire.closed()


def test_a_broken_body_behind_an_accepted_request_is_refused_in_its_turn(service: Served) -> None:
    with Wire(service.port) as wire:
        in_flight(service, wire)
        wire.send(b"POST /v1/score HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n")
        until(service.refuses)
        service.open()
        first, second = wire.reply(), wire.reply()
        assert (first.status, second.status, second.json["code"]) == (200, 400, "malformed_request")
        assert wire.closed()
    assert len(service.engines["m"].calls) == 1


def test_a_caller_that_hangs_up_with_requests_ahead_leaves_nothing(service: Served) -> None:
    with Wire(service.port) as wire:
        in_flight(service, wire)
        wire.send(HEALTH * 10)
    service.open()
    until(lambda: service.connections() == 0)
    until(lambda: service.do(lambda: len(service.server.server_state.tasks)) == 0)
