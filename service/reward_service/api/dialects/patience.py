"""Waiting for room in the caller's stead: many trainers give up where a client would come back."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from reward_service.errors import DeadlineExceeded, Overloaded
from reward_service.telemetry import Stage

T = TypeVar("T")
WAITING_PART = 2 / 3
"""The part of the time that may pass before a request is let in: what is let in is answered in a third of its time."""
SPREAD = 1.1


async def patiently(score: Callable[[], Coroutine[Any, Any, T]], most_s: float) -> T:
    """What `score()` returns within `most_s` seconds; a call that finds no room is made again when it was told to be.

    Raises Overloaded when the time that it was told is too long to wait, DeadlineExceeded after `most_s`.
    """
    last_entry = time.monotonic() + most_s * WAITING_PART
    try:
        async with asyncio.timeout(most_s):
            while True:
                try:
                    return await _apart(score())
                except Overloaded as error:
                    wait_s = error.retry_after_s * random.uniform(1.0, SPREAD)  # noqa: S311
                    if time.monotonic() + wait_s > last_entry:
                        raise
                with Stage("wait"):
                    await asyncio.sleep(wait_s)
    except TimeoutError:
        raise DeadlineExceeded(f"no answer within {most_s:g} s, the time for a request of this trainer") from None


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` in a task of its own, which is cancelled with this one.

    Before Python 3.13 a TaskGroup that fails while it is being left keeps its task marked as cancelled: a later timeout
    or hang-up would not be told from that.
    """
    this = cast(asyncio.Task[Any], asyncio.current_task())
    requested = this.cancelling()
    try:
        return await asyncio.create_task(work)
    except Overloaded:
        if this.cancelling() > requested:  # asked to stop in the very moment that the work failed
            raise asyncio.CancelledError from None
        raise
