"""What a kind of server is asked, and what its answers mean: plain data, no I/O."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from reward_service.engine.engine import Priority
from reward_service.errors import ServiceError

Row = list[float] | ServiceError


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One item as it is sent; `text` only for servers that take no token ids."""

    ids: list[int]
    text: str

    @property
    def tokens(self) -> int:
        """How many tokens the server must count."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server says that it serves; `revision` is whatever names the weights there."""

    served: str
    revision: str | None = None
    max_tokens: int | None = None
    max_items: int | None = None
    labels: tuple[str, ...] | None = None
    objective: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """A route, and the fields that ask it for raw scores; `activated` are those that ask for probabilities instead.

    Versions of a server differ in them, and most ignore a field that they do not know: which way gives raw scores, the
    scores themselves must show, unless raw is all that the route can give (`sure`).
    """

    path: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    activated: Mapping[str, Any] | None = None
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of outputs per item, in order, and the tokens that the server counted over all items."""

    rows: Sequence[Row]
    tokens: int


class Asking(Protocol):
    """A server that can be asked about itself."""

    async def get(self, path: str) -> Any:
        """The JSON at a path; raises Refused or Unavailable."""


@dataclass(frozen=True, slots=True)
class Call:
    """A batch for a server; a `salt` keeps it from using what it cached before."""

    identity: Identity
    way: Way
    items: Sequence[Outgoing]
    priority: Priority = Priority.ROLLOUT
    salt: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: JSON and headers; `labels` are the model's."""

    identity: Identity
    labels: Sequence[str]
    body: Any
    headers: Mapping[str, str]


class HostedProtocol(ABC):
    """A kind of server."""

    ways: ClassVar[Sequence[Way]]
    health: ClassVar[str] = "/health"
    sends_text: ClassVar[bool] = False
    """It takes text and no token ids."""
    adds_special_tokens: ClassVar[bool] = False
    """Its tokenizer adds special tokens to every text, also to one that starts with them."""
    pools_last: ClassVar[bool] = True
    """Its decoders pool the literal last token."""

    @abstractmethod
    async def identify(self, server: Asking, served_name: str | None) -> Identity:
        """What the server serves; raises NotReady when it is not what the configuration says."""

    @abstractmethod
    def body(self, call: Call) -> dict[str, Any]:
        """The JSON of a call without the fields of its way."""

    @abstractmethod
    def parse(self, reply: Reply) -> Answer:
        """What a reply says; raises LookupError, TypeError or ValueError if it says nothing."""
