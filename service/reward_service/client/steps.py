"""What a call asks of the client that runs it.

A call is a generator: it decides everything and does nothing. It yields a step, the client does it and sends back the
result. There are four steps, so that all that can differ between Client and AsyncClient is how they do these.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Release = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Enter:
    """Wait for one of the client's slots, at most so long. Result: a function that frees it, or None."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send one request and read the whole answer, all within `timeout_s`. Result: Reply or Lost."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    params: Mapping[str, str | int | float | bool]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Result: None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Run several flows at once. Result: the list of what they return; the first exception is raised."""

    flows: "Sequence[Flow[Any]]"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer, and why: the connection could not be made, broke, or was silent for too long."""

    error: Exception

    def __str__(self) -> str:
        text = str(self.error)
        return f"{type(self.error).__name__}: {text}" if text else type(self.error).__name__


Step: TypeAlias = Enter | Send | Sleep | Together
Flow: TypeAlias = Generator[Step, Any, T]
