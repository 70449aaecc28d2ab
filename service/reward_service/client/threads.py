"""Tasks at once, in threads that nobody waits for once one of them has failed."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from typing import TypeVar

T = TypeVar("T")
Left = deque[tuple[Callable[[], T], Future[T]]]


class Stopped(Exception):
    """Another task of the same call has failed."""


def together(tasks: Sequence[Callable[[], T]], most: int, stop: threading.Event) -> list[T]:
    """What the tasks return, at most so many at once; the first exception of one is raised, and sets `stop`.

    Tasks that look at `stop` raise Stopped, which is raised here only if no task has failed by itself. The threads are
    daemons: a process that ends does not wait for the requests that are still under way.
    """
    futures: list[Future[T]] = [Future() for _ in tasks]
    left: Left[T] = deque(zip(tasks, futures, strict=True))
    try:
        for _ in range(min(len(tasks), most)):
            threading.Thread(target=_work, args=(left, stop), name="reward-service-client", daemon=True).start()
        for future in as_completed(futures):
            if not isinstance(future.exception(), Stopped):
                future.result()
        return [future.result() for future in futures]
    except BaseException:
        stop.set()
        raise


def check(stop: threading.Event) -> None:
    """Raise Stopped if the call is over."""
    if stop.is_set():
        raise Stopped


def _work(left: Left[T], stop: threading.Event) -> None:
    """Do one task after the other until none is left."""
    while True:
        try:
            task, future = left.popleft()
        except IndexError:
            return
        try:
            check(stop)
            future.set_result(task())
        except BaseException as error:
            future.set_exception(error)
