"""A pooler before PostgreSQL that gives its session to whoever has a transaction to do, as
pgbouncer does by `pool_mode = transaction`; it takes no `options` of libpq, as that never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_ENCRYPTION = {80877103, 80877104}
"""What a client asks for with these codes, TLS or GSS, before it starts."""
_NO_OPTIONS = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


@asynccontextmanager
async def pooler(dsn: str) -> AsyncIterator[str]:
    """The DSN of a pooler before the database of `dsn`."""
    url = urlsplit(dsn)
    pool = _Pool(url.hostname or "", url.port or 5432)
    listener = await asyncio.start_server(pool.accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield url._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()
    finally:
        listener.close()
        await pool.close()


class _Pool:
    """One session of PostgreSQL for all clients."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._session: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._greeting = b""
        self._turn = asyncio.Lock()
        self._clients: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def close(self) -> None:
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        if self._session is not None:
            await _close(self._session[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        finally:
            await _close(writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = await _start(reader, writer)
        if b"\0options\0" in start:
            writer.write(b"E" + (4 + len(_NO_OPTIONS)).to_bytes(4) + _NO_OPTIONS)
            return
        async with self._turn:
            writer.write(await self._greet(start))
        while (message := await _message(reader))[:1] != b"X":
            async with self._turn:
                await self._transact(message, reader, writer)

    async def _greet(self, start: bytes) -> bytes:
        """What PostgreSQL has said to the first client, it says to all."""
        if self._session is None:
            self._session = await asyncio.open_connection(*self._address)
            self._session[1].write(start)
            while not self._greeting.endswith(b"Z\0\0\0\5I"):
                self._greeting += await _message(self._session[0])
        return self._greeting

    async def _transact(
        self, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry what is asked and answered until the client is in no transaction."""
        assert self._session is not None
        answers, asked = self._session
        while True:
            asked.write(message)
            if message[:1] in (b"Q", b"S"):
                while (answer := await _message(answers))[:1] != b"Z":
                    writer.write(answer)
                writer.write(answer)
                if answer.endswith(b"I"):
                    return
            message = await _message(reader)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """A client's first message, which alone has no kind."""
    while True:
        size = await reader.readexactly(4)
        rest = await reader.readexactly(int.from_bytes(size) - 4)
        if int.from_bytes(rest[:4]) not in _ENCRYPTION:
            return size + rest
        writer.write(b"N")


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
