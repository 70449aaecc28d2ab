"""What routes are given: the service, and a way to stop work whose caller has left."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from reward_service.errors import ClientGone
from reward_service.service import Service

T = TypeVar("T")


async def _service(request: Request) -> Service:
    """Async, since FastAPI gives a plain function to a thread."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the caller hangs up (ClientGone)."""
    task = cast(asyncio.Task[Any], asyncio.current_task())
    watch = asyncio.create_task(_cancel_on_hang_up(request, task))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.done() and task.uncancel() == 0:
            raise ClientGone("the caller closed the connection before the answer was ready") from None
        raise
    finally:
        watch.cancel()


async def _cancel_on_hang_up(request: Request, task: asyncio.Task[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    task.cancel()
