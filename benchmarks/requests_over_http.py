"""HTTP requests that cost the caller little: ready bytes over plain sockets, one connection each."""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit


async def post_all(url: str, path: str, bodies: Sequence[bytes]) -> list[bytes]:
    """The bodies of the answers to requests sent at once; RuntimeError for an answer that is not 200."""
    return await asyncio.gather(*(post(url, path, body) for body in bodies))


async def post(url: str, path: str, body: bytes) -> bytes:
    """The body of one answer."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 26)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        )
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer_head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if b" 200 " not in answer_head.splitlines()[0]:
        raise RuntimeError(f"{answer_head.decode()}: {answer[:500].decode()}")
    return answer
