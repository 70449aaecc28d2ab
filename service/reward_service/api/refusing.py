"""How a request is refused before its body is read."""

import asyncio
from contextlib import suppress

from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from reward_service.api import problem
from reward_service.errors import ServiceError

LINGER_S = 5.0


class Incoming:
    """The `receive` of a request that remembers whether all of its body has come, or its caller has gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def __call__(self) -> Message:
        """What the server says next."""
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        return message


async def refuse(error: ServiceError, scope: Scope, incoming: Incoming, send: Send) -> None:
    """Answer with the error, then close the connection.

    Most callers read an answer only when they have sent their whole body, and closing before that would take the
    answer from them: so for LINGER_S what still comes is taken in and dropped.
    """

    async def hold_open(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    response = problem.answer(Request(scope), error)
    response.headers["connection"] = "close"
    await response(scope, incoming, hold_open)
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while not incoming.ended:
                await incoming()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
