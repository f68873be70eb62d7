"""Serves calls on a port: the part of `grpc.aio.server` that `mesh.server` needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

import grpc
import ngh2
from msgspec import Struct
from typing_extensions import override

from mesh.rpc.headers import CONTENT_TYPE, Ending, Field, trailers_of
from mesh.rpc.link import Link
from mesh.rpc.method import Method
from mesh.rpc.served import ANSWER, Context

Find = Callable[[str], Method | None]
"""How /package.Service/Method is served; None when it is not."""

_BACKLOG = 1_024
_CLEAR_SECONDS = 5.0
"""How long what is cut off may take to let go of what it holds."""
_GREETING_SECONDS = 20.0
"""A connection that has not said by then that it speaks HTTP/2 is closed."""
_MAX_UNHEARD_BYTES = 64 << 20
"""When so much that was answered waits for the client to make room, it is served no further."""
_UNKNOWN = Ending(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
_MAX_FIELDS_BYTES = 16 << 10
_TOO_LARGE = Ending(grpc.StatusCode.RESOURCE_EXHAUSTED, "metadata of more than 16 KiB")
_ENCODINGS = (None, b"identity", b"gzip")
_COMPRESSED = Ending(grpc.StatusCode.UNIMPLEMENTED, "compressed otherwise than by gzip")
_UNREADABLE = Ending(grpc.StatusCode.INTERNAL, "grpc-timeout is not readable")
_NO_GRPC: list[Field] = [(b":status", b"415"), (b"accept", CONTENT_TYPE)]


class _Port(Struct):
    """What all connections to it share."""

    find: Find
    limit: int
    links: set[_Serving]
    cut_off: set[asyncio.Task[None]]
    """Tasks that were cancelled and go on."""
    leaving: bool = False


class RpcServer:
    """Calls of all connections to one port."""

    def __init__(self, find: Find, *, limit: int) -> None:
        """A request of more than `limit` bytes is refused with RESOURCE_EXHAUSTED."""
        self._port = _Port(find, limit, set(), set())
        self._listening: asyncio.Server | None = None

    async def listen(self, host: str, port: int, *, shares_port: bool = False) -> int:
        """Serve; returns the port. `shares_port`: others of this user may listen on it too.

        Raises:
            OSError: the address is taken, or is none of this machine's.
        """
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                lambda: _Serving(self._port),
                host.strip("[]"),
                port,
                backlog=_BACKLOG,
                reuse_port=shares_port,
            )
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}") from error
        return int(self._listening.sockets[0].getsockname()[1])

    async def stop(self, grace_seconds: float) -> None:
        """Take no new call, let those that are served go on for so long, and hang up.

        A client has five seconds more to hear what was answered.
        """
        if self._listening is None:
            return
        self._listening.close()
        self._port.leaving = True
        for link in self._port.links:
            link.leave()
        await _within(grace_seconds, self._served)
        for link in self._port.links:
            link.cut_off()
        await _within(_CLEAR_SECONDS, self._served)
        await _within(_CLEAR_SECONDS, self._heard)
        for link in list(self._port.links):
            link.hang_up()

    def _served(self) -> Sequence[asyncio.Future[None]]:
        tasks = (task for link in self._port.links for task in link.tasks())
        return [*self._port.cut_off, *tasks]

    def _heard(self) -> Sequence[asyncio.Future[None]]:
        return [link.gone for link in self._port.links]


async def _within(seconds: float, left: Callable[[], Sequence[asyncio.Future[None]]]) -> None:
    """Wait until nothing is left, but no longer than that."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (waiting := left()) and (rest := end - loop.time()) > 0:
        await asyncio.wait(waiting, timeout=rest)


class _Serving(Link):
    """A connection of a client."""

    def __init__(self, port: _Port) -> None:
        super().__init__(ngh2.Role.SERVER)
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done once it is over."""
        self._port = port
        self._patience = self._loop.call_later(_GREETING_SECONDS, self.close)
        self._events[ngh2.SettingsReceived] = lambda _: self._patience.cancel()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._port.links.add(self)
        if self._port.leaving:
            self.leave()

    @override
    def lost(self) -> None:
        self._patience.cancel()
        self._port.links.discard(self)
        self.gone.set_result(None)

    @override
    def pause_writing(self) -> None:
        """Who does not take its answers is not heard either: they would heap up here."""
        super().pause_writing()
        if self._transport is not None:
            self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._transport is not None:
            self._transport.resume_reading()

    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """What is being served."""
        tasks = (context.task for context in self._contexts())
        return [task for task in tasks if task is not None and not task.done()]

    def _contexts(self) -> Iterator[Context]:
        return (stream for stream in self.streams.values() if isinstance(stream, Context))

    def leave(self) -> None:
        """Tell the client that no further call is served here. We hang up after the last."""
        if not self.over:
            self.h2.send_goaway()
            self.speak()

    def cut_off(self) -> None:
        """Serve nothing any longer."""
        for context in self._contexts():
            context.stop()

    def hang_up(self) -> None:
        """Be done with it, whether the client has heard all or not."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    @override
    def opened(self, event: ngh2.RequestReceived) -> None:
        told = dict(event.headers)
        if self._port.leaving or self.h2.queued_body_size() > _MAX_UNHEARD_BYTES:
            self._abandon(event.stream_id, ngh2.ErrorCode.REFUSED_STREAM)
            return
        posts = told.get(b":method") == b"POST"
        if not (posts and told.get(b"content-type", b"").startswith(CONTENT_TYPE)):
            self._refuse(event.stream_id, _NO_GRPC)
            return
        method = self._port.find(told[b":path"].decode("ascii", "replace"))
        if method is None:
            self._refuse(event.stream_id, _headers_of(_UNKNOWN))
        elif sum(map(len, chain.from_iterable(event.headers))) > _MAX_FIELDS_BYTES:
            self._refuse(event.stream_id, _headers_of(_TOO_LARGE))
        elif told.get(b"grpc-encoding") not in _ENCODINGS:
            self._refuse(event.stream_id, _headers_of(_COMPRESSED))
        else:
            self._open(event, method)

    def _open(self, event: ngh2.RequestReceived, method: Method) -> None:
        stream_id, fields = event.stream_id, event.headers
        limit, cut_off = self._port.limit, self._port.cut_off
        try:
            context = Context(self, stream_id, method, fields, limit=limit, cut_off=cut_off)
        except ValueError:
            self._refuse(stream_id, _headers_of(_UNREADABLE))
            return
        self.streams[stream_id] = context
        if event.end_stream:
            context.headers((), ended=True)

    def _refuse(self, stream_id: int, headers: Sequence[Field]) -> None:
        with suppress(ngh2.NGH2Error):  # the client has given it up
            self.h2.send_response(stream_id, headers, end_stream=True)
        self.speak()


def _headers_of(ending: Ending) -> list[Field]:
    """An answer without a message."""
    return [*ANSWER, *trailers_of(ending)]
