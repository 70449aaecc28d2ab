"""The Python client: needs httpx, pydantic and numpy, and none of the server's packages."""

from reward_service.client.client import AsyncClient, Client
from reward_service.client.errors import RequestFailed, ScoringFailed

__all__ = ["AsyncClient", "Client", "RequestFailed", "ScoringFailed"]
