"""What a connection may do: its time, its size, and what it gets for junk."""

import time
from collections.abc import Iterator

import pytest

from tests.access.configs import with_limits
from tests.access.serving import Served, Wire, request, score_request, served, until

LIMITS = with_limits(max_request_bytes=65536, max_connections=40)
HASTY = with_limits(header_timeout_s=0.4, body_timeout_s=0.4)
HEAD = b"POST /v1/score HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
PARTIAL_HEAD = b"GET /health HTTP/1.1\r\nhost: te"
MIB = 1 << 20


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served(LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served]:
    """A service that waits for nobody: what it must not refuse is sent before it looks."""
    with served(HASTY) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(service: Served, hasty: Served) -> Iterator[None]:
    yield
    for one in (service, hasty):
        check_nothing_is_left(one)


def check_nothing_is_left(service: Served) -> None:
    """No connection and no task, and the next caller is served."""
    until(lambda: service.connections() == 0)
    until(lambda: service.do(lambda: len(service.server.server_state.tasks)) == 0)
    with service.told(score_request()) as wire:
        assert wire.reply().json["scores"][0]["reward"] == 1.5


def refused(wire: Wire, status: int, code: str) -> str:
    """The sentence of the problem document that ends the connection."""
    reply = wire.reply()
    assert (reply.status, reply.json["code"], reply.headers["connection"]) == (status, code, "close")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == reply.json["request_id"]
    assert wire.closed()
    detail: str = reply.json["detail"]
    return detail


def test_a_connection_that_sends_nothing_is_closed(hasty: Served) -> None:
    with Wire(hasty.port) as wire:
        assert wire.closed()


def test_headers_that_do_not_end_in_time_get_408(hasty: Served) -> None:
    with hasty.told(PARTIAL_HEAD) as wire:
        assert "limits.header_timeout_s" in refused(wire, 408, "request_timeout")


def test_headers_that_drip_get_408_too(hasty: Served) -> None:
    with hasty.told(PARTIAL_HEAD) as wire:

        def dripped() -> bool:
            wire.send(b"x")
            return wire.hears(0.05)

        until(dripped)
        refused(wire, 408, "request_timeout")


def test_the_headers_of_a_later_request_have_the_same_time(hasty: Served) -> None:
    with hasty.told(request("GET", "/health") + PARTIAL_HEAD) as wire:
        assert wire.reply().status == 200
        wire.send(b"st")
        refused(wire, 408, "request_timeout")


def test_an_idle_connection_stays_open_until_it_sends_what_is_no_request(hasty: Served) -> None:
    with hasty.told(request("GET", "/health")) as wire:
        assert wire.reply().status == 200
        time.sleep(0.8)
        wire.send(request("GET", "/health"))
        assert wire.reply().status == 200
        wire.send(b"\r\n")
        assert wire.closed()


@pytest.mark.parametrize("framing", [b"content-length: 100\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n5\r\n{"])
def test_a_body_that_does_not_end_in_time_gets_408(framing: bytes, hasty: Served) -> None:
    with hasty.told(HEAD + framing) as wire:
        assert "limits.body_timeout_s" in refused_at_once(wire, 408, "request_timeout")


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(service: Served) -> None:
    with Wire(service.port) as wire:
        wire.send(HEAD + b"content-length: 65537\r\nexpect: 100-continue\r\n\r\n")
        assert "at most 65536 (limits.max_request_bytes)" in refused_at_once(wire, 413, "too_large")


def refused_at_once(wire: Wire, status: int, code: str) -> str:
    """As `refused`, but the body that was announced never comes."""
    reply = wire.reply()
    assert (reply.status, reply.json["code"], reply.headers["connection"]) == (status, code, "close")
    detail: str = reply.json["detail"]
    return detail


def test_a_caller_that_sends_all_of_a_large_body_still_sees_why_it_is_refused(service: Served) -> None:
    with Wire(service.port) as wire:
        wire.send(HEAD + b"content-length: %d\r\n\r\n" % (16 * MIB))
        for _ in range(16):
            wire.pour(b"x" * MIB)
        refused(wire, 413, "too_large")


def test_a_body_of_unknown_length_is_refused_when_it_is_too_large(service: Served) -> None:
    with Wire(service.port) as wire:
        wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(16):
            wire.pour(b"100000\r\n" + b"x" * MIB + b"\r\n")
        wire.pour(b"0\r\n\r\n")
        refused(wire, 413, "too_large")


def test_a_body_of_the_largest_size_is_taken(service: Served) -> None:
    body = b'{"conversations": []}'
    with Wire(service.port) as wire:
        wire.send(HEAD + b"content-length: 65536\r\n\r\n" + body.ljust(65536))
        assert wire.reply().status == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity"])
def test_a_compressed_body_gets_415(encoding: str, service: Served) -> None:
    with Wire(service.port) as wire:
        wire.send(score_request(headers={"content-encoding": encoding}))
        assert encoding in refused(wire, 415, "unsupported_encoding")


JUNK = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "no HTTP": b"hello\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "a NUL in the path": b"GET /\x00 HTTP/1.1\r\nhost: test\r\n\r\n",
    "a path outside ASCII": "GET /é HTTP/1.1\r\nhost: test\r\n\r\n".encode(),
    "no path": b"CONNECT test:80 HTTP/1.1\r\nhost: test\r\n\r\n",
    "a header without a name": b"GET /health HTTP/1.1\r\n: x\r\n\r\n",
    "a header with a space": b"GET /health HTTP/1.1\r\nho st: x\r\n\r\n",
    "a length below zero": HEAD + b"content-length: -1\r\n\r\n",
    "a length beyond 64 bits": HEAD + b"content-length: 99999999999999999999\r\n\r\n",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length and chunks": HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a length": HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk longer than it says": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{}}}\r\n",
}


@pytest.mark.parametrize("name", JUNK)
def test_what_is_no_http_gets_a_problem_document(name: str, service: Served) -> None:
    with Wire(service.port) as wire:
        wire.send(JUNK[name])
        refused(wire, 400, "malformed_request")


@pytest.mark.parametrize(
    "bomb",
    [
        b"GET /health HTTP/1.1\r\nx: " + b"x" * MIB,
        b"GET /health HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(50_000)),
        b"GET /" + b"x" * MIB,
        b"GET /health HTTP/1.1\r\nx: " + b"x" * 65_000 + b"\r\nhost: " + b"y" * 1_000 + b"\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(50_000)),
        HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * MIB,
    ],
    ids=["one header", "many headers", "path", "a little too much", "trailers", "chunk extension"],
)
def test_headers_without_end_get_431(bomb: bytes, service: Served) -> None:
    with Wire(service.port) as wire:
        wire.pour(bomb)
        refused(wire, 431, "headers_too_large")


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_upgrade_is_not_followed_and_the_request_is_served(protocol: str, service: Served) -> None:
    upgrade = {"connection": "Upgrade", "upgrade": protocol}
    with Wire(service.port) as wire:
        wire.send(request("GET", "/health", headers=upgrade))
        assert wire.reply().status == 200
        assert wire.closed()
    with Wire(service.port) as wire:
        wire.send(score_request(headers=upgrade))
        assert "without the header upgrade" in refused(wire, 400, "malformed_request")


def test_trailers_of_a_body_are_dropped(service: Served) -> None:
    body = b'{"conversations": []}'
    with Wire(service.port) as wire:
        wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nx-late: 1\r\n\r\n" % (len(body), body))
        assert wire.reply().status == 200


def test_over_the_most_connections_callers_are_told_to_come_back(service: Served) -> None:
    wires = [Wire(service.port) for _ in range(40)]
    try:
        for wire in wires:
            wire.__enter__()
            wire.send(request("GET", "/health"))
            assert wire.reply().status == 200
        with Wire(service.port) as one_more:
            one_more.send(score_request())
            reply = one_more.reply()
            assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "overloaded", "1")
            assert one_more.closed()
        with Wire(service.port) as probe:
            probe.send(request("GET", "/health"))
            assert probe.reply().status == 200
            assert probe.closed()
    finally:
        for wire in wires:
            wire.__exit__(None, None, None)
