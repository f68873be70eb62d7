"""One call that is made, with streams of messages there and back.

Whoever makes it is called back: when it is accepted, for each message, and once when it is over.
What it writes waits in libnghttp2 until the peer takes it, so it should not write more before the
last is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import ngh2

from mesh.rpc.calling import LOST, NO_STATUS, reset_by_peer
from mesh.rpc.headers import Ending, Field, ending_of
from mesh.rpc.link import Link
from mesh.rpc.messages import Inbound, Unreadable, framed

if TYPE_CHECKING:
    from mesh.rpc.channel import Channel


class Listener(Protocol):
    """Whoever makes such a call; each method is called in the loop's turn."""

    def begun(self) -> None:
        """It was given to a connection, from where a peer hears of it; now it can be written."""

    def accepted(self) -> None:
        """The peer serves it."""

    def heard(self, message: bytes) -> None:
        """A message."""

    def ended(self, ending: Ending) -> None:
        """It is over; nothing comes after this."""


class StreamCall:
    """Such a call, on its way or waiting for a connection."""

    def __init__(
        self, channel: Channel, fields: Sequence[Field], listener: Listener, *, key: int
    ) -> None:
        self.key = key
        self.tries = 0
        """How often it was given to a connection."""
        self._channel = channel
        self._fields = fields
        self._listener = listener
        self._inbound = Inbound(channel.limit)
        self._link: Link | None = None
        self._stream_id = 0
        self._ending: Ending | None = None
        self._touched = False
        """Whether something was written or heard."""
        self._over = False

    def begin(self, link: Link) -> None:
        """Open it, unless it was given up meanwhile.

        Raises:
            ngh2.NGH2Error: this connection takes no further call.
        """
        if self._over:
            return
        stream_id = link.h2.send_request(self._fields)
        link.streams[stream_id] = self
        link.speak()
        self._link, self._stream_id = link, stream_id
        self.tries += 1
        self._listener.begun()

    def write(self, message: bytes, sent: Callable[[], None]) -> None:
        """Send a message; `sent` is called when it is on its way, and never if it cannot be."""
        if self._link is not None and not self._over:
            self._touched = True
            self._link.h2.send_data(self._stream_id, framed(message))
            self._link.when_sent(self._stream_id, sent)

    def give_up(self) -> None:
        """Say and hear nothing any more; `ended` is not called."""
        self._over = True
        self._channel.forget(self)
        if self._link is not None:
            self._link.give_up(self._stream_id, ngh2.ErrorCode.CANCEL)

    def fail(self, ending: Ending) -> None:
        """It cannot be made, or goes no further."""
        if not self._over:
            self._over = True
            self._listener.ended(ending)

    # --- what comes by the stream ---------------------------------------------

    def headers(self, fields: Sequence[Field], *, ended: bool) -> None:
        """Header fields, and trailers."""
        if ended:
            self._end(ending_of(fields))
        elif (b":status", b"200") not in fields:
            self._ending = ending_of(fields)
        elif not self._over:
            self._touched = True
            self._listener.accepted()

    def data(self, data: bytes, *, ended: bool) -> None:
        """A part of the messages."""
        if self._link is not None:
            self._link.accept(self._stream_id, len(data))
        if self._ending is None:
            self._take(data)
        if ended:
            self._end(NO_STATUS)

    def _take(self, data: bytes) -> None:
        try:
            messages = self._inbound.feed(data)
        except Unreadable as error:
            self._end(error.ending)
            return
        for message in messages:
            if not self._over:
                self._listener.heard(message)

    def _end(self, ending: Ending) -> None:
        """The peer says nothing more, so nobody says anything."""
        self.fail(self._ending or ending)
        self.give_up()

    def reset(self, error_code: int) -> None:
        """The peer has given it up, as is told again when it is closed."""

    def closed(self, error_code: int) -> None:
        """Nothing more comes."""
        lost, self._link = self._link is not None and self._link.over, None
        if not self._refused(error_code):
            self.fail(self._ending or (LOST if lost else reset_by_peer(error_code)))

    def _refused(self, error_code: int) -> bool:
        """Whether it is made again, since nobody has looked at it and nothing is lost with it."""
        refused = error_code == ngh2.ErrorCode.REFUSED_STREAM and self._ending is None
        return refused and not self._touched and self._channel.again(self)
