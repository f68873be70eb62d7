"""A TCP link to a server that a test can cut, slow down, and make lose an answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class Link:
    """Forwards a free port of this machine to a server, inside `async with`."""

    def __init__(self, host: str, port: int) -> None:
        self._far_end = (host, port)
        self._listener: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._losing = False
        self._delay = 0.0

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Break every connection, and every later one at once."""
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Let connections through again."""
        self._cut = False

    def lose_next_answer(self) -> None:
        """Deliver what is sent next, and cut the link when its answer comes."""
        self._losing = True

    def delay(self, seconds: float) -> None:
        """Let every answer take this much longer from now on."""
        self._delay = seconds

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        await asyncio.gather(*self._carried)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried = asyncio.create_task(self._carry(reader, writer))
        self._carried.add(carried)
        carried.add_done_callback(self._carried.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            if self._cut:
                writer.transport.abort()
                return
            far_reader, far_writer = await asyncio.open_connection(*self._far_end)
            ends = {writer, far_writer}
            self._writers |= ends
            await asyncio.gather(
                self._pump(reader, far_writer), self._pump(far_reader, writer, answers=True)
            )
            self._writers -= ends
        writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                if answers and self._losing:
                    self._losing = False
                    self.cut()
                if answers:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()
        writer.close()
