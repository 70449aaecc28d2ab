"""A proxy in front of a TCP server that holds back each answer for a while."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class SlowProxy:
    """Listens on `port` until the end of the block; every answer takes `delay_s` longer than the server's."""

    def __init__(self, server_port: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connected(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            with suppress(ConnectionError):
                async with asyncio.TaskGroup() as group:
                    forth = group.create_task(self._forward(reader, questions, slowly=False))
                    back = group.create_task(self._forward(answers, writer, slowly=True))
                    await asyncio.wait([forth, back], return_when=asyncio.FIRST_COMPLETED)
                    forth.cancel()
                    back.cancel()
        finally:
            writer.close()
            questions.close()

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, slowly: bool) -> None:
        while data := await source.read(65536):
            if slowly:
                await asyncio.sleep(self.delay_s)
            target.write(data)
            with suppress(ConnectionError):
                await target.drain()
