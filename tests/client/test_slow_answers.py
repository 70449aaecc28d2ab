"""A try ends when its time is over, whatever the server does with it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat

import pytest

from reward_service.client import AsyncClient, Client, Unavailable

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n"
Talk = Callable[[socket.socket, threading.Event], None]


@contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """A server that reads the first request and then talks as it likes until the event is set; its URL.

    Whoever comes after that is told to come later.
    """
    over = threading.Event()

    def serve() -> None:
        with suppress(OSError):  # it listens no more
            for answer in chain([talk], repeat(come_later)):
                connection, _ = listening.accept()
                with connection, suppress(OSError):  # the client has gone
                    connection.recv(65536)
                    answer(connection, over)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(20)


def come_later(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 900\r\ncontent-length: 0\r\n\r\n")


def dripping_headers(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(HEAD)
    for i in range(300):
        if over.wait(0.1):
            return
        connection.sendall(b"x-%d: 1\r\n" % i)


def silent_after_late_headers(connection: socket.socket, over: threading.Event) -> None:
    over.wait(2.3)
    connection.sendall(HEAD + b"\r\n{")
    over.wait(20)


async def test_headers_that_drip_do_not_hold_an_async_client() -> None:
    started = time.monotonic()
    with talking(dripping_headers) as url:
        async with AsyncClient(url, timeout_s=0.6) as client:
            with pytest.raises(Unavailable, match="ReadTimeout"):
                await client.models()
    assert time.monotonic() - started < 20


def test_the_body_gets_the_time_that_its_headers_have_left() -> None:
    with talking(silent_after_late_headers) as url, Client(url, deadline_s=2.5) as client:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="ReadTimeout"):
            client.models()
        assert time.monotonic() - started < 4.75  # else at least 2.3 + 2.5
