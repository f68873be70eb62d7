"""Serves calls on a port: the part of `grpc.aio.server` that `mesh.server` needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain

import grpc
import ngh2
from typing_extensions import override

from mesh.rpc.headers import CONTENT_TYPE, Ending, trailers_of
from mesh.rpc.link import Header, Link
from mesh.rpc.served import Context, Method

Find = Callable[[str], Method | None]
"""How /package.Service/Method is served; None when it is not."""

_BACKLOG = 1_024
_CLEAR_SECONDS = 5.0
"""How long what is cut off may take to let go of what it holds."""
_UNKNOWN = Ending(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
_MAX_FIELDS_BYTES = 16 << 10
_TOO_LARGE = Ending(grpc.StatusCode.RESOURCE_EXHAUSTED, "metadata of more than 16 KiB")
_UNREADABLE = Ending(grpc.StatusCode.INTERNAL, "grpc-timeout is not readable")
_NO_GRPC: list[Header] = [(b":status", b"415"), (b"accept", CONTENT_TYPE)]


class RpcServer:
    """Calls of all connections to one port."""

    def __init__(self, find: Find, *, limit: int) -> None:
        """A request of more than `limit` bytes is refused with RESOURCE_EXHAUSTED."""
        self._find = find
        self._limit = limit
        self._links: set[_Serving] = set()
        self._listening: asyncio.Server | None = None

    async def listen(self, host: str, port: int, *, shares_port: bool = False) -> int:
        """Serve; returns the port. `shares_port`: others of this user may listen on it too.

        Raises:
            OSError: the address is taken, or is none of this machine's.
        """
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                lambda: _Serving(self._find, self._links, limit=self._limit),
                host.strip("[]"),
                port,
                backlog=_BACKLOG,
                reuse_port=shares_port,
            )
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}") from error
        return int(self._listening.sockets[0].getsockname()[1])

    async def stop(self, grace_seconds: float) -> None:
        """Take no new call, let those that are served go on for so long, and hang up."""
        if self._listening is None:
            return
        self._listening.close()
        for link in self._links:
            link.leave()
        if tasks := [task for link in self._links for task in link.tasks()]:
            await asyncio.wait(tasks, timeout=grace_seconds)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CLEAR_SECONDS)
        for link in list(self._links):
            await link.farewell()


class _Serving(Link):
    """A connection of a client."""

    def __init__(self, find: Find, links: set[_Serving], *, limit: int) -> None:
        super().__init__(ngh2.Role.SERVER)
        self._find = find
        self._links = links
        self._limit = limit
        self._contexts: set[Context] = set()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._links.add(self)

    @override
    def lost(self) -> None:
        self._links.discard(self)

    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """What is being served."""
        served = (stream for stream in self.streams.values() if isinstance(stream, Context))
        return [context.task for context in served if context.task is not None]

    def leave(self) -> None:
        """Tell the client that no further call is served here."""
        if not self.over:
            self.h2.send_goaway()
            self.speak()

    async def farewell(self) -> None:
        """Say what is left to say, and hang up."""
        if not self.over:
            await self.sent(0)
        self.close()

    @override
    def opened(self, event: ngh2.RequestReceived) -> None:
        told = dict(event.headers)
        if not told.get(b"content-type", b"").startswith(CONTENT_TYPE):
            self._refuse(event.stream_id, _NO_GRPC)
            return
        method = self._find(told[b":path"].decode("ascii", "replace"))
        if method is None:
            self._refuse(event.stream_id, _headers_of(_UNKNOWN))
        elif sum(map(len, chain.from_iterable(event.headers))) > _MAX_FIELDS_BYTES:
            self._refuse(event.stream_id, _headers_of(_TOO_LARGE))
        else:
            self._open(event, method)

    def _open(self, event: ngh2.RequestReceived, method: Method) -> None:
        stream_id, fields = event.stream_id, event.headers
        try:
            context = Context(self, stream_id, method, fields, limit=self._limit)
        except ValueError:
            self._refuse(stream_id, _headers_of(_UNREADABLE))
            return
        self.streams[stream_id] = context
        if event.end_stream:
            context.headers((), ended=True)

    def _refuse(self, stream_id: int, headers: Sequence[Header]) -> None:
        self.h2.send_response(stream_id, headers, end_stream=True)
        self.speak()


def _headers_of(ending: Ending) -> list[Header]:
    """An answer without a message."""
    return [(b":status", b"200"), (b"content-type", CONTENT_TYPE), *trailers_of(ending)]
