"""A TCP connection to MongoDB that can be cut: before a request, or between it and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Wire:
    """Forwards between clients and one server."""

    def __init__(self, uri: str) -> None:
        server = urlsplit(uri)
        self._server = (server.hostname, server.port)
        self.uri = ""
        """Where clients connect to."""
        self.is_cut = False
        """Close every connection as soon as something is sent on it."""
        self.lose_answer_to = ""
        """Let the next such command through, then close its connection instead of answering."""
        self.after = 0
        """How many such commands are answered before that."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        to_server = await asyncio.open_connection(*self._server)
        try:
            while (request := await reader.read(1 << 16)) and not self.is_cut:
                answer = await self._ask(*to_server, request)
                if self._loses(request):
                    return
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()
            to_server[1].close()

    def _loses(self, request: bytes) -> bool:
        if not self.lose_answer_to or self.lose_answer_to.encode() + b"\0" not in request:
            return False
        self.after -= 1
        lost = self.after < 0
        if lost:
            self.lose_answer_to, self.after = "", 0
        return lost

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> bytes:
        writer.write(request)
        size = await reader.readexactly(4)
        return size + await reader.readexactly(int.from_bytes(size, "little") - 4)


@asynccontextmanager
async def wire_to(uri: str) -> AsyncIterator[Wire]:
    wire = Wire(uri)
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        wire.uri = f"mongodb://{host}:{port}/?heartbeatFrequencyMS=500"
        yield wire
        server.close()
