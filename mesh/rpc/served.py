"""One call that is served: from its first header field to its trailers.

A call that has one message for a request begins when that is there. Its handler runs in a task of
its own, which is cancelled when the client gives the call up, vanishes, or its time is over. Of a
stream of requests no more is taken in than its handler reads: as long as a message waits to be
read, the client's window does not open again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

import grpc
import ngh2
import structlog

from mesh.rpc.headers import (
    CONTENT_TYPE,
    Ending,
    Field,
    Metadata,
    fields_of,
    metadata_of,
    seconds_of,
    trailers_of,
)
from mesh.rpc.link import Link
from mesh.rpc.messages import Inbound, Unreadable, framed
from mesh.rpc.method import Ended, Method, StreamOver

ANSWER = [
    (b":status", b"200"),
    (b"content-type", CONTENT_TYPE),
    (b"grpc-accept-encoding", b"identity,gzip"),
]
"""Header fields of every answer."""
_OK = Ending(grpc.StatusCode.OK)
_OK_TRAILERS = trailers_of(_OK)
_LATE = Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
_STOPPED = Ending(grpc.StatusCode.UNAVAILABLE, "the server has stopped")
_BROKEN = Ending(grpc.StatusCode.UNKNOWN, "the server failed on it; its log says more")
_NO_MESSAGE = Ending(grpc.StatusCode.INTERNAL, "the request has no message")
_CUT_OFF = Ending(grpc.StatusCode.INTERNAL, "the last request ends before it is complete")
MAX_KEPT_BYTES = 64 << 20
"""Of all requests of one connection that are not complete, or not read yet."""
_TOO_MUCH = Ending(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much that is not complete, at once")
_log = structlog.stdlib.get_logger()


class Context:
    """One call, as its handler sees it, and the stream that it came by."""

    def __init__(
        self,
        link: Link,
        stream_id: int,
        method: Method,
        fields: Sequence[Field],
        *,
        limit: int,
        cut_off: set[asyncio.Task[None]],
    ) -> None:
        """A message of the client's has at most `limit` bytes. Its task is in `cut_off` from when
        it is cancelled until it has let go of what it holds.

        Raises:
            ValueError: the client's time limit is not readable.
        """
        told = dict(fields)
        self.task: asyncio.Task[None] | None = None
        self._cut_off = cut_off
        self._link = link
        self._id = stream_id
        self._method = method
        self._fields = fields
        self._loop = asyncio.get_running_loop()
        self._inbound = Inbound(limit, unzips=told.get(b"grpc-encoding") == b"gzip")
        self._messages: deque[bytes] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._withheld = 0
        """Bytes of the client's that are not accepted yet."""
        self._kept = 0
        """Of the connection's bytes that are kept."""
        self._complete = False
        """Whether the client has sent all."""
        self._begun = self._over = False
        self._trailing: Metadata = ()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if (limit_field := told.get(b"grpc-timeout")) is not None:
            self._due = self._loop.time() + seconds_of(limit_field)
            self._timer = self._loop.call_at(self._due, self._late)
        if method.request_streaming:
            self._begin(self._requests())

    # --- what a handler asks and says -----------------------------------------

    def invocation_metadata(self) -> Metadata:
        """What the client has sent along."""
        return metadata_of(self._fields)

    def trailing_metadata(self) -> Metadata:
        """What is sent with the status, as it was set."""
        return self._trailing

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Send this with the status."""
        self._trailing = metadata

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Let the client know at once that its call is served."""
        self._answer(metadata)

    async def abort(
        self, code: grpc.StatusCode, message: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call by hand; an error that says what is wrong is better (`mesh/errors.py`).

        Raises:
            Ended: always.
        """
        raise Ended(Ending(code, message, trailing_metadata))

    async def write(self, message: Any) -> None:  # noqa: ANN401 - of the method's own type
        """Send one message of a stream, and wait until it is on its way.

        Raises:
            StreamOver: nobody hears it.
        """
        self._send(message)
        await self._link.sent(self._id)
        if self._over:
            raise StreamOver

    def peer(self) -> str:
        """Where the client is, such as ipv4:127.0.0.1:40312."""
        return self._link.peer

    def time_remaining(self) -> float | None:
        """Seconds until the client gives up; None when it waits for ever."""
        return None if self._due is None else max(0.0, self._due - self._loop.time())

    # --- what comes by the stream ---------------------------------------------

    def headers(self, _: Sequence[Field], *, ended: bool) -> None:
        """Trailers of the client's, which mean nothing."""
        self._received((), ended=ended)

    def data(self, data: bytes, *, ended: bool) -> None:
        """A part of a request."""
        self._withheld += len(data)
        try:
            messages = () if self._has_all() else self._inbound.feed(data)
        except Unreadable as error:
            self._break_off(error.ending)
            return
        self._received(messages, ended=ended)
        self._weigh()

    def _weigh(self) -> None:
        """Count what is kept here, or a bit more; end the call that makes it too much."""
        kept = 0 if self._has_all() else self._withheld + self._inbound.partial
        if kept == self._kept:
            return
        self._link.kept += kept - self._kept
        self._kept = kept
        if not kept:
            self._inbound.forget()
            self._messages.clear()
        elif self._link.kept > MAX_KEPT_BYTES:
            self._break_off(_TOO_MUCH)

    def _has_all(self) -> bool:
        return self._over or (self.task is not None and not self._method.request_streaming)

    def _received(self, messages: Sequence[bytes], *, ended: bool) -> None:
        self._complete |= ended
        if not self._method.request_streaming:
            self._accept()
            if self.task is None and not self._over:
                self._begin_with(messages, ended=ended)
            return
        self._messages.extend(messages)
        if not self._messages or self._over:
            self._accept()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _begin_with(self, messages: Sequence[bytes], *, ended: bool) -> None:
        if messages:
            self._begin(messages[0])
        elif ended:
            self._finish(_NO_MESSAGE)

    def reset(self, _: int) -> None:
        """The client gives it up."""
        self._give_up()

    def closed(self, _: int) -> None:
        """The stream is over: as it should, or because the connection is."""
        self._give_up()

    def _give_up(self) -> None:
        self._complete = True
        if not self._over:
            self._over = True
            self._cancel()
        self._accept()

    def _accept(self) -> None:
        self._link.accept(self._id, self._withheld)
        self._withheld = 0
        if self._kept:
            self._weigh()

    # --- serving --------------------------------------------------------------

    def stop(self) -> None:
        """Serve it no longer: its handler is cancelled, and may still answer."""
        if self.task is None:
            self._finish(_STOPPED)
        self._cancel()

    def _late(self) -> None:
        self._break_off(_LATE)

    def _break_off(self, ending: Ending) -> None:
        self._finish(ending)
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.task is not None and not self.task.done():
            self.task.cancel()
            self._cut_off.add(self.task)
            self.task.add_done_callback(self._cut_off.discard)

    def _begin(self, received: bytes | AsyncIterator[Any]) -> None:
        self.task = self._loop.create_task(self._serve(received))

    async def _serve(self, received: bytes | AsyncIterator[Any]) -> None:
        try:
            self._finish(await self._ending(received))
        except asyncio.CancelledError:
            self._finish(_STOPPED)
            raise
        except StreamOver:
            self._give_up()
        except Exception:  # noqa: BLE001 - a bug; its client hears so, the others are served
            _log.exception("rpc.broken")
            self._trailing = ()  # of an ending that is none any more, or the bug itself
            self._finish(_BROKEN)

    async def _ending(self, received: bytes | AsyncIterator[Any]) -> Ending:
        try:
            response = await self._method.perform(received, self)
        except Ended as ended:
            return ended.ending
        if not self._method.response_streaming:
            self._send(response)
        return _OK

    async def _requests(self) -> AsyncIterator[Any]:
        parse = self._method.parse
        while self._messages or not self._complete:
            if not self._messages:
                self._arrived = self._loop.create_future()
                await self._arrived
                continue
            message = self._messages.popleft()
            if not self._messages:
                self._accept()
            yield parse(message) if parse else message
        if self._inbound.partial or self._over:
            raise Ended(_CUT_OFF)

    # --- answering ------------------------------------------------------------

    def _answer(self, metadata: Metadata = ()) -> None:
        if not (self._begun or self._over):
            self._begun = True
            self._say(self._link.h2.send_response, [*ANSWER, *fields_of(metadata)])

    def _send(self, message: Any) -> None:  # noqa: ANN401 - of the method's own type
        serialize = self._method.serialize
        serialized = serialize(message) if serialize else message
        self._answer()
        self._say(self._link.h2.send_data, framed(serialized))

    def _finish(self, ending: Ending) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._over:
            return
        trailers = _OK_TRAILERS
        if ending is not _OK or self._trailing:
            metadata = ending.metadata or self._trailing
            trailers = trailers_of(Ending(ending.code, ending.message, metadata))
        if self._begun:
            self._say(self._link.h2.send_trailers, trailers)
        else:
            self._say(self._link.h2.send_response, [*ANSWER, *trailers], end_stream=True)
        self._over = True
        self._accept()

    def _say(self, say: Any, what: Any, **how: bool) -> None:  # noqa: ANN401
        """Say it, if there is anybody to hear it."""
        if self._over or self._link.over:
            return
        try:
            say(self._id, what, **how)
        except ngh2.NGH2Error:  # given up by the client, which we hear of next
            self._give_up()
        else:
            self._link.speak()
