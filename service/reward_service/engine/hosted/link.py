"""One server's HTTP connection: what is asked, how long for, and what each way to fail means for the items."""

from collections.abc import Mapping
from typing import Any

import httpx

OVERLOADED = (429, 503)
CONNECT_S = 5.0
ASK_S = 10.0
LONGEST_DETAIL = 300


class Refused(Exception):
    """The server refuses what it was sent: another server would too."""


class Unavailable(Exception):
    """The server did not compute it; another may. `busy` when it says that it has no room now."""

    def __init__(self, reason: str, *, busy: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.busy = busy
        self.retry_after_s = retry_after_s


class Link:
    """One server. Each call is closed when it is cancelled."""

    def __init__(self, client: httpx.AsyncClient, url: str, api_key: str | None) -> None:
        self.url = url.rstrip("/")
        self._client = client
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def get(self, path: str) -> Any:
        """The JSON at a path."""
        response = await self._send("GET", path, None, ASK_S)
        return _json(response)

    async def healthy(self, path: str) -> None:
        """Returns when the server says that it is; raises Unavailable."""
        try:
            await self._send("GET", path, None, ASK_S)
        except Refused as refused:
            raise Unavailable(str(refused)) from refused

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> tuple[Any, Mapping[str, str]]:
        """The JSON and the headers that answer a call."""
        response = await self._send("POST", path, body, timeout_s)
        return _json(response), response.headers

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> httpx.Response:
        timeout = httpx.Timeout(max(timeout_s, 0.001), connect=CONNECT_S)
        try:
            response = await self._client.request(
                method, self.url + path, json=body, headers=self._headers, timeout=timeout
            )
        except httpx.TimeoutException as error:
            raise Unavailable(f"no answer to {path} within {timeout_s:.1f} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{path}: {type(error).__name__}: {error}") from error
        _raise_for(response, path)
        return response


def _raise_for(response: httpx.Response, path: str) -> None:
    status = response.status_code
    if status < 300:
        return
    told = f"{path} answered {status}: {_detail(response)}"
    if status in OVERLOADED:
        raise Unavailable(told, busy=True, retry_after_s=_seconds(response.headers.get("retry-after")))
    if 400 <= status < 500 and status not in (401, 403, 408, 424):
        raise Refused(told)
    raise Unavailable(told)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Unavailable(
            f"{response.request.url.path} answered no JSON: {response.text[:LONGEST_DETAIL]!r}"
        ) from error


def _detail(response: httpx.Response) -> str:
    """The sentence in an error body: servers put it under `error.message`, `error`, `detail` or `message`."""
    try:
        body = response.json()
    except ValueError:
        return response.text[:LONGEST_DETAIL]
    for key in ("error", "detail", "message"):
        if isinstance(body, dict) and key in body:
            body = body[key]
    return str(body)[:LONGEST_DETAIL]


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None
