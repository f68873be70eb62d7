"""A TCP link between two processes of this machine that can be cut, slow, silent or forgetful.

    OPEN    bytes go through as they come
    CUT     every connection is broken (RST), and every new one at once
    RESET   every connection is broken once, with all streams and calls on it; new ones go through
    SILENT  connections are accepted and stay, and nothing is delivered until the mode ends
    SLOW    every piece is late, and large ones take longer
    LOSSY   an answer now and then is lost, and its connection with it: what was asked has happened

The port is taken when the link is made, so that it can be told to a process before the link runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from local.ports import HOST

_CHUNK = 1 << 16
_LATENCY_SECONDS = 0.1
_BYTES_PER_SECOND = 256 * 1024
_LOST_ANSWERS = 0.1


class Mode(StrEnum):
    """What a link does to what goes through it."""

    OPEN = "OPEN"
    CUT = "CUT"
    RESET = "RESET"
    SILENT = "SILENT"
    SLOW = "SLOW"
    LOSSY = "LOSSY"


class Link:
    """Forwards a port of its own to the server at `far_port`, inside `async with`.

    `chance` gives numbers in [0, 1).
    """

    def __init__(self, far_port: int, chance: Callable[[], float]) -> None:
        self._far_port = far_port
        self._chance = chance
        self._socket = socket.create_server((HOST, 0))
        self._listener: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._mode = Mode.OPEN
        self._audible = asyncio.Event()
        self._audible.set()
        self.port: int = self._socket.getsockname()[1]

    @property
    def mode(self) -> Mode:
        """What it does now."""
        return self._mode

    def turn(self, mode: Mode) -> None:
        """Do something else from now on."""
        self._mode = mode
        if mode is Mode.SILENT:
            self._audible.clear()
        else:
            self._audible.set()
        if mode in {Mode.CUT, Mode.RESET}:
            self._break_all()

    def _break_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, sock=self._socket)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self.turn(Mode.CUT)
        await asyncio.gather(*self._carried)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried = asyncio.create_task(self._carry(reader, writer))
        self._carried.add(carried)
        carried.add_done_callback(self._carried.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.CUT:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._far_port)
        except ConnectionError:
            writer.transport.abort()
        else:
            self._writers.add(far_writer)
            await asyncio.gather(
                self._pump(reader, far_writer), self._pump(far_reader, writer, answers=True)
            )
            self._writers.discard(far_writer)
        self._writers.discard(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        """Carry one direction to its end; a connection that broke here breaks on the other side."""
        try:
            while data := await reader.read(_CHUNK):
                await self._delay(len(data))
                if answers and self._loses():
                    raise ConnectionResetError
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()
        with suppress(ConnectionError):
            writer.close()

    async def _delay(self, size: int) -> None:
        await self._audible.wait()
        if self._mode is Mode.SLOW:
            await asyncio.sleep(_LATENCY_SECONDS + size / _BYTES_PER_SECOND)

    def _loses(self) -> bool:
        return self._mode is Mode.LOSSY and self._chance() < _LOST_ANSWERS
