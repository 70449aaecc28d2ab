"""What routes are given: the service, and a way to stop work whose caller has left."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from reward_service.errors import ClientGone
from reward_service.service import Service

T = TypeVar("T")
UNWATCHED_S = 0.01
"""Who is answered within it is not watched: that a caller has gone is told as well a moment later."""


async def _service(request: Request) -> Service:
    """Async, since FastAPI gives a plain function to a thread."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up (ClientGone)."""
    watch = _Watch(request, cast(asyncio.Task[Any], asyncio.current_task()))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.has_cancelled and watch.work.uncancel() == 0:
            raise ClientGone("the caller closed the connection before the answer was ready") from None
        raise
    finally:
        watch.end()


class _Watch:
    """Cancels the task `work` when the caller of a request hangs up."""

    def __init__(self, request: Request, work: asyncio.Task[Any]) -> None:
        self.work = work
        self.has_cancelled = False
        self._request = request
        self._started: asyncio.Task[None] | None = None
        self._timer = work.get_loop().call_later(UNWATCHED_S, self._start)

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
        if self._started is not None:
            self._started.cancel()

    def _start(self) -> None:
        self._started = asyncio.create_task(self._until_hang_up())

    async def _until_hang_up(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.has_cancelled = True
        self.work.cancel()
