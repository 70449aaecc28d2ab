"""The Python client: needs httpx, pydantic and numpy, and none of the server's packages."""

from reward_service.client.async_client import AsyncClient
from reward_service.client.client import Client
from reward_service.client.errors import (
    AnswersDisagree,
    ClientError,
    Conflict,
    ExpectationFailed,
    RequestFailed,
    ScoringFailed,
    Unavailable,
)

__all__ = [
    "AnswersDisagree",
    "AsyncClient",
    "Client",
    "ClientError",
    "Conflict",
    "ExpectationFailed",
    "RequestFailed",
    "ScoringFailed",
    "Unavailable",
]
