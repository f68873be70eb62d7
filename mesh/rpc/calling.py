"""One call that is made, with one message there and one back.

What comes of it is told once: the bytes of the response, or how it ended otherwise. When the peer
says that it has not looked at the call, because it leaves or has too many, the call is made again
by another connection; that is no second attempt. Whatever else goes wrong leaves open whether it
was served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import grpc
import ngh2
from typing_extensions import override

from mesh.rpc.headers import STATUS, Ending, Field, ending_of
from mesh.rpc.link import Link
from mesh.rpc.messages import Inbound, Unreadable, framed

if TYPE_CHECKING:
    from mesh.rpc.channel import Channel

Address: TypeAlias = tuple[str, int]
Outcome: TypeAlias = bytes | Ending
Ended: TypeAlias = Callable[[Outcome], object]

LOST = Ending(grpc.StatusCode.UNAVAILABLE, "the connection was lost before the answer")
_QUIET_SECONDS, _SIGN_SECONDS = 20.0, 5.0
"""Not more often: servers in other languages hang up on clients that ask much."""
_OK = (STATUS, b"0")
_FINE = Ending(grpc.StatusCode.OK)
NO_STATUS = ending_of(())
_NOT_ONE = Ending(grpc.StatusCode.INTERNAL, "the answer is not one message")
_RESETS: Mapping[int, grpc.StatusCode] = {
    ngh2.ErrorCode.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    ngh2.ErrorCode.CANCEL: grpc.StatusCode.CANCELLED,
    ngh2.ErrorCode.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ngh2.ErrorCode.INADEQUATE_SECURITY: grpc.StatusCode.PERMISSION_DENIED,
}
"""https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors"""


def reset_by_peer(error_code: int) -> Ending:
    """How a call ends that the peer has reset."""
    code = _RESETS.get(error_code, grpc.StatusCode.INTERNAL)
    return Ending(code, f"the peer has reset the call with HTTP/2 error {error_code}")


class Call:
    """A call on its way, or waiting for a connection."""

    __slots__ = (
        "_channel",
        "_ending",
        "_inbound",
        "_link",
        "_message",
        "_stream_id",
        "body",
        "ended",
        "fields",
        "key",
        "length_ms",
        "tries",
    )

    def __init__(
        self,
        channel: Channel,
        fields: Sequence[Field],
        request: bytes,
        ended: Ended,
        *,
        key: int,
        length_ms: int,
    ) -> None:
        """`key` and `length_ms` are those of its deadline."""
        self.key = key
        self.length_ms = length_ms
        self.fields = fields
        self.body = framed(request)
        self.ended = ended
        self.tries = 0
        """How often it was given to a connection."""
        self._channel = channel
        self._link: Link | None = None
        self._stream_id = 0
        self._message: bytes | None = None
        self._ending: Ending | None = None
        self._inbound: Inbound | None = None

    def begin(self, link: Link) -> None:
        """Send it.

        Raises:
            ngh2.NGH2Error: this connection takes no further call.
        """
        stream_id = link.h2.send_request(self.fields)
        link.h2.send_data(stream_id, self.body, end_stream=True)
        link.streams[stream_id] = self
        link.speak()
        self._link, self._stream_id = link, stream_id
        self.tries += 1

    def fail(self, ending: Ending) -> None:
        """It cannot be made, or goes no further."""
        self._channel.conclude(self, ending)

    def give_up(self) -> None:
        """Tell the peer, if it has heard of it, that nobody waits any more."""
        if self._link is not None:
            self._link.give_up(self._stream_id, ngh2.ErrorCode.CANCEL)
            self._link.streams.pop(self._stream_id, None)

    # --- what comes by the stream ---------------------------------------------

    def headers(self, fields: Sequence[Field], *, ended: bool) -> None:
        """Header fields, and trailers."""
        if ended:
            self._end(_FINE if _OK in fields else ending_of(fields))
        elif (b":status", b"200") in fields:
            self._inbound = Inbound(self._channel.limit)
        else:
            self._ending = ending_of(fields)

    def data(self, data: bytes, *, ended: bool) -> None:
        """A part of the response."""
        if self._link is not None:
            self._link.accept(self._stream_id, len(data))
        if self._inbound is not None and self._ending is None:
            try:
                messages = self._inbound.feed(data)
            except Unreadable as error:
                self._break(error.ending)
                return
            for message in messages:
                if self._message is not None:
                    self._break(_NOT_ONE)
                self._message = message
        if ended:
            self._end(NO_STATUS)

    def _break(self, ending: Ending) -> None:
        self.give_up()
        self.fail(ending)

    def _end(self, ending: Ending) -> None:
        """The peer says nothing more, though it may not have heard everything."""
        if self._ending is None:
            self._ending = ending
        if self._link is not None and self._link.h2.queued_body_size(self._stream_id):
            self.give_up()
            self._channel.conclude(self, self._outcome(self._ending))

    def reset(self, error_code: int) -> None:
        """The peer has given it up, as is told again when it is closed."""

    def closed(self, error_code: int) -> None:
        """Nothing more comes."""
        lost, self._link = self._link is not None and self._link.over, None
        if (ending := self._ending) is not None:
            self._channel.conclude(self, self._outcome(ending))
        elif not self._refused(error_code):
            self._channel.conclude(self, LOST if lost else reset_by_peer(error_code))

    def _refused(self, error_code: int) -> bool:
        """Whether it is made again, since nobody has looked at it."""
        untouched = error_code == ngh2.ErrorCode.REFUSED_STREAM and self._inbound is None
        return untouched and self._channel.again(self)

    def _outcome(self, ending: Ending) -> Outcome:
        if ending is not _FINE and ending.code is not grpc.StatusCode.OK:
            return ending
        if self._message is None or self._inbound is None or self._inbound.partial:
            return _NOT_ONE
        return self._message


class Calling(Link):
    """A connection to one address.

    A peer that says nothing for a while although calls wait for it is asked for a sign of life; one
    that gives none is left, and its calls hear so.
    """

    def __init__(self, channel: Channel, address: Address) -> None:
        super().__init__(ngh2.Role.CLIENT)
        self.address = address
        self._greeted = asyncio.Event()
        self._channel = channel
        self._channel.connections.add(self)
        self._leaving_for_good = False
        self._heard = False
        self._watch = self._loop.call_later(_QUIET_SECONDS, self._look)
        self._events[ngh2.SettingsReceived] = lambda _: self._greeted.set()

    async def greeting(self) -> None:
        """Return once the peer has said that it speaks HTTP/2. Hangs up when it does not in time.

        Raises:
            ConnectionResetError: it takes no calls.
        """
        try:
            await self._greeted.wait()
        except asyncio.CancelledError:
            self.close()
            raise
        if self.over or not self.h2.can_send_request:
            raise ConnectionResetError(0, "the peer takes no calls")

    def leave(self) -> None:
        """Begin no further call, and hang up when the last is over."""
        self._channel.leave(self)
        self._leaving_for_good = True
        self._rest()

    @override
    def go_away(self, event: ngh2.GoAwayReceived) -> None:
        self.leave()

    @override
    def lost(self) -> None:
        self._watch.cancel()
        self._channel.connections.discard(self)
        self._channel.leave(self)
        self._channel.spread()
        self._greeted.set()

    @override
    def data_received(self, data: bytes) -> None:
        self._heard = True
        super().data_received(data)

    @override
    def _tell(self, events: Sequence[ngh2.Event]) -> None:
        super()._tell(events)
        self._channel.spread()
        self._rest()

    def _rest(self) -> None:
        if self._leaving_for_good and not self.streams:
            self._loop.call_soon(self.close)

    def _look(self) -> None:
        """Ask for a sign of life if nothing was heard since the last look, and calls wait."""
        if self.streams and not self._heard:
            self.h2.ping()
            self.speak()
            self._watch = self._loop.call_later(_SIGN_SECONDS, self._look_for_sign)
            return
        self._look_later()

    def _look_later(self) -> None:
        self._heard = False
        self._watch = self._loop.call_later(_QUIET_SECONDS, self._look)

    def _look_for_sign(self) -> None:
        if self._heard:
            self._look_later()
        else:
            self.close()
