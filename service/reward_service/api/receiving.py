"""What a request brings: its headers, and messages that were taken already and are given once more."""

from starlette.types import Message, Receive, Scope


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by their names in lower case; of those that come more than once the first."""
    return dict(reversed(scope["headers"]))


def again(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives `message`, and after it what the server has to say."""
    waiting: Message | None = message

    async def receive_again() -> Message:
        nonlocal waiting
        if waiting is None:
            return await receive()
        now, waiting = waiting, None
        return now

    return receive_again
