"""Each mode of a link does to a connection what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from local.ports import HOST
from tests.chaos.link import Link, Mode

ALWAYS, NEVER = 0.0, 1.0


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, what: bytes) -> bytes:
        """The answer; empty when the connection broke."""
        self._writer.write(what)
        return await self.answer()

    async def answer(self) -> bytes:
        try:
            return await self._reader.read(1024)
        except ConnectionError:
            return b""


class Bench:
    """A server that echoes, a link to it, and clients of the link."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        """What the server got."""
        self.link: Link
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection(HOST, self.link.port)
        self._writers.append(writer)
        return Client(reader, writer)

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            self.heard.append(data)
            writer.write(data)
        writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def bench(chance: float = NEVER) -> AsyncIterator[Bench]:
    bench = Bench()
    server = await asyncio.start_server(bench.echo, HOST, 0)
    async with server, Link(server.sockets[0].getsockname()[1], lambda: chance) as bench.link:
        with closing(bench):
            yield bench


async def test_an_open_link_carries_both_directions() -> None:
    async with bench() as on:
        assert await (await on.connect()).ask(b"hello") == b"hello"


async def test_a_cut_breaks_what_is_connected_and_what_connects() -> None:
    async with bench() as on:
        connected = await on.connect()
        assert await connected.ask(b"hello") == b"hello"
        on.link.turn(Mode.CUT)
        assert await connected.answer() == b""
        assert await (await on.connect()).ask(b"hello") == b""


async def test_a_reset_breaks_what_is_connected_and_lets_new_connections_through() -> None:
    async with bench() as on:
        connected = await on.connect()
        assert await connected.ask(b"hello") == b"hello"
        on.link.turn(Mode.RESET)
        assert await connected.answer() == b""
        assert await (await on.connect()).ask(b"hello") == b"hello"


async def test_a_link_that_is_open_again_carries_new_connections() -> None:
    async with bench() as on:
        on.link.turn(Mode.CUT)
        on.link.turn(Mode.OPEN)
        assert await (await on.connect()).ask(b"hello") == b"hello"


async def test_a_silent_link_delivers_nothing_until_it_is_open_again() -> None:
    async with bench() as on:
        on.link.turn(Mode.SILENT)
        client = await on.connect()
        asking = asyncio.create_task(client.ask(b"hello"))
        done, _ = await asyncio.wait({asking}, timeout=0.1)
        assert not done
        assert not on.heard
        on.link.turn(Mode.OPEN)
        assert await asking == b"hello"


async def test_a_slow_link_is_late() -> None:
    loop = asyncio.get_running_loop()
    async with bench() as on:
        client = await on.connect()
        on.link.turn(Mode.SLOW)
        asked_at = loop.time()
        assert await client.ask(b"hello") == b"hello"
        assert loop.time() - asked_at >= 0.2  # there and back


async def test_a_lossy_link_delivers_the_question_and_loses_the_answer() -> None:
    async with bench(chance=ALWAYS) as on:
        client = await on.connect()
        on.link.turn(Mode.LOSSY)
        assert await client.ask(b"hello") == b""
        assert on.heard == [b"hello"]
