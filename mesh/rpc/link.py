"""One HTTP/2 connection on the event loop.

What is said on it within one turn of the loop leaves in one write, be it the answers to a hundred
calls; so a batch costs what one of them does. libnghttp2 is told what arrives and asked for what is
to be sent; what happens to a stream meanwhile comes as an event for whoever owns the stream.

The peer may send as much as we have taken in: the window of a stream opens again when the bytes of
it have been accepted (`accept`), so who does not read stops its sender and nobody else. What we
send waits in libnghttp2 until the peer's window is open, and here while the transport is full.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, cast

import ngh2
import structlog
from msgspec import Struct
from typing_extensions import override

from mesh.rpc.headers import Field

STREAM_WINDOW = 1 << 20
"""Bytes that a peer may send on a stream beyond those that were accepted."""
_CONNECTION_WINDOW = (1 << 31) - 1
"""All streams together: each has its own bound, and none can use up what others need."""
_MAX_STREAMS = 16_384
"""Calls that a client may have open on one connection; more wait on its side."""
_MAX_FIELDS_BYTES = 1 << 16
"""Header fields of one message. A peer that knows of gRPC sends no more when it is told; what comes
nevertheless is no error of the connection before it is very much."""
_SETTINGS = {
    ngh2.Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    ngh2.Setting.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
    ngh2.Setting.MAX_HEADER_LIST_SIZE: _MAX_FIELDS_BYTES,
    ngh2.Setting.ENABLE_PUSH: 0,
}
_CONFIGURATION = ngh2.Configuration(
    auto_window_update=False,
    # A client that cancels thousands of calls at once, because it stops, is no attacker.
    stream_reset_rate_limit=(100_000, 10_000),
    max_inbound_header_list_size=16 * _MAX_FIELDS_BYTES,
    max_inbound_header_count=16 * _MAX_FIELDS_BYTES,  # their bytes are limit enough
    max_continuations=64,
)
_HEARD_AT_ONCE = 1 << 16
"""Bytes. One byte may stand for a header field of 4 KiB that the peer has sent before."""
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 60, 5, 3
"""A peer that vanished is noticed by TCP after so long."""
_UNHEARD_MS = 1_000 * (_IDLE_SECONDS + _PROBE_SECONDS * _PROBES)
"""And one that vanished, or reads nothing, while something is said to it."""
_log = structlog.stdlib.get_logger()


class Stream(Protocol):
    """Whoever owns one stream of a connection. Each method is called in the loop's turn."""

    def headers(self, fields: Sequence[Field], *, ended: bool) -> None:
        """The peer's header fields or trailers; `ended` when it says nothing more."""

    def data(self, data: bytes, *, ended: bool) -> None:
        """A part of the peer's body, to be accepted sooner or later."""

    def reset(self, error_code: int) -> None:
        """The peer gave it up."""

    def closed(self, error_code: int) -> None:
        """It is over, whatever the reason; nothing comes after this."""


class _Writer(Struct):
    """Somebody who waits until what it has said is on its way."""

    stream_id: int
    sent: Callable[[], None]


class Link(asyncio.Protocol):
    """A connection and the owners of its streams."""

    def __init__(self, role: ngh2.Role) -> None:
        self.h2 = ngh2.Connection(role, _CONFIGURATION)
        self.streams: dict[int, Stream] = {}
        """Those that are not closed yet, by their ids."""
        self.over = False
        """Whether nothing can be said or heard any more."""
        self.kept = 0
        """Bytes here of messages of the peer's that are not complete, or that nobody has read."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._leaving = False
        self._full = False
        self._writers: list[_Writer] = []
        self._events: dict[type[ngh2.Event], Callable[..., None]] = {
            ngh2.DataReceived: self._data,
            ngh2.RequestReceived: self._headers,
            ngh2.ResponseReceived: self._headers,
            ngh2.TrailersReceived: self._trailers,
            ngh2.StreamReset: self._reset,
            ngh2.StreamClosed: self._closed,
            ngh2.GoAwayReceived: self.go_away,
            ngh2.ConnectionClosed: lambda _: self.close(),
        }

    @property
    def peer(self) -> str:
        """Where the other end is, such as ipv4:127.0.0.1:40312."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        if not name:
            return "unknown"
        host, port, *more = name
        return f"ipv6:[{host}]:{port}" if more else f"ipv4:{host}:{port}"

    # --- what is said ---------------------------------------------------------

    def speak(self) -> None:
        """Something was said on `h2`: let it leave at the end of this turn."""
        if not (self._leaving or self._full or self.over):
            self._leaving = True
            self._loop.call_soon(self._leave)

    def when_sent(self, stream_id: int, sent: Callable[[], None]) -> None:
        """Call `sent` once what was said on a stream is on its way, or the connection is over."""
        if self.over:
            sent()
            return
        self._writers.append(_Writer(stream_id, sent))
        self.speak()

    async def sent(self, stream_id: int) -> None:
        """Return once what was said on a stream is on its way, or the connection is over."""
        done: asyncio.Future[None] = self._loop.create_future()
        self.when_sent(stream_id, partial(_wake, done))
        await done

    def accept(self, stream_id: int, size: int) -> None:
        """Let the peer send as much again on a stream."""
        if size and not self.over:
            try:
                self.h2.acknowledge_received_data(size, stream_id)
            except ngh2.NGH2Error:  # the connection ends, of which we hear next
                return
            self.speak()

    def give_up(self, stream_id: int, error_code: int) -> None:
        """Tell the peer that nothing more is said or heard on a stream."""
        if not self.over and stream_id in self.streams:
            self._abandon(stream_id, error_code)

    def _abandon(self, stream_id: int, error_code: int) -> None:
        with suppress(ngh2.NGH2Error):  # as above
            self.h2.reset_stream(stream_id, error_code)
        self.speak()

    def close(self) -> None:
        """Hang up; every stream that is left hears of it."""
        if self._transport is not None:
            self._transport.close()
        self._end()

    def _leave(self) -> None:
        self._leaving = False
        if self.over or self._full:
            return
        try:
            data = self.h2.data_to_send()
        except ngh2.NGH2Error:
            self.close()
            return
        if data:
            cast("asyncio.Transport", self._transport).write(data)
        self._tell(self.h2.events())
        self._release()

    def _release(self) -> None:
        """Wake those whose words have left, as far as the transport has taken them."""
        if self._writers and not self._full:
            waiting, self._writers = self._writers, []
            for writer in waiting:
                if self.over or not self._queued(writer.stream_id):
                    writer.sent()
                else:
                    self._writers.append(writer)

    def _queued(self, stream_id: int) -> int:
        return self.h2.queued_body_size(stream_id) if stream_id in self.streams else 0

    # --- what is heard --------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _keep_alive(transport.get_extra_info("socket"))
        self.h2.initiate_connection(_SETTINGS)
        self.h2.set_local_window_size(_CONNECTION_WINDOW)
        self.speak()

    @override
    def data_received(self, data: bytes) -> None:
        heard = memoryview(data)
        for start in range(0, len(data), _HEARD_AT_ONCE):
            if self.over:
                return
            try:
                self.h2.receive_data(heard[start : start + _HEARD_AT_ONCE])
            except ngh2.NGH2Error:  # it speaks something else, or too much of it
                self.close()
                return
            self._tell(self.h2.events())
        self.speak()

    @override
    def pause_writing(self) -> None:
        self._full = True

    @override
    def resume_writing(self) -> None:
        self._full = False
        self._release()
        self.speak()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._full = False
        self._release()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            try:
                stream.closed(ngh2.ErrorCode.NO_ERROR)
            except Exception:  # noqa: BLE001 - a bug; the others hear of it nevertheless
                _log.exception("rpc.broken")
        self.lost()

    def lost(self) -> None:
        """The connection is over."""

    def go_away(self, event: ngh2.GoAwayReceived) -> None:
        """The peer takes no further streams."""

    def opened(self, event: ngh2.RequestReceived) -> None:
        """The peer has opened a stream."""

    def _tell(self, events: Sequence[ngh2.Event]) -> None:
        for event in events:
            if (tell := self._events.get(type(event))) is not None:
                try:
                    tell(event)
                except Exception:  # noqa: BLE001 - a bug; the call fails, the others go on
                    _log.exception("rpc.broken")
                    if stream_id := getattr(event, "stream_id", 0):
                        self._abandon(stream_id, ngh2.ErrorCode.INTERNAL_ERROR)

    def _headers(self, event: ngh2.RequestReceived | ngh2.ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.headers(event.headers, ended=event.end_stream)
        elif isinstance(event, ngh2.RequestReceived):
            self.opened(event)

    def _trailers(self, event: ngh2.TrailersReceived) -> None:
        if (stream := self.streams.get(event.stream_id)) is not None:
            stream.headers(event.headers, ended=True)

    def _data(self, event: ngh2.DataReceived) -> None:
        if (stream := self.streams.get(event.stream_id)) is not None:
            stream.data(event.data, ended=event.end_stream)
        else:
            self.accept(event.stream_id, len(event.data))

    def _reset(self, event: ngh2.StreamReset) -> None:
        if (stream := self.streams.get(event.stream_id)) is not None:
            stream.reset(event.error_code)

    def _closed(self, event: ngh2.StreamClosed) -> None:
        if (stream := self.streams.pop(event.stream_id, None)) is not None:
            stream.closed(event.error_code)


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _keep_alive(connection: socket.socket | None) -> None:
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNHEARD_MS),
    ):
        if (option := getattr(socket, name, None)) is not None:  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
