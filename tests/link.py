"""A TCP link to a server that a test can cut, and make lose the answer to what it has delivered."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Link:
    """Forwards a port of this machine to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._cut = False
        self._losing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._delivered = asyncio.Event()

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

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end closes it or the link is cut."""
        if self._cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._server)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer))
                both.create_task(self._pump_answers(far_reader, writer))
        finally:
            self._writers -= ends

    async def _pump_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._pump(reader, writer, answers=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if answers and self._losing:
                    self._losing = False
                    self.cut()
                writer.write(data)
                await writer.drain()
        writer.close()
