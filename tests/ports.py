"""Ports that nobody listens on until a test lets somebody."""

import socket
from typing import Self

GIVEN: set[int] = set()
"""Those of this process so far."""


class HeldPort:
    """A TCP port that nobody else is given until it is closed; who reuses addresses may listen there.

    By default one that none of this process had before: a trainer's connections are kept, and go by the URL.
    """

    def __init__(self, number: int = 0) -> None:
        while True:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("127.0.0.1", number))
            self.number: int = self.socket.getsockname()[1]
            if number or self.number not in GIVEN:
                GIVEN.add(self.number)
                return
            self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of it."""
        self.socket.close()
