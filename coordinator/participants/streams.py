"""The step streams to one participant, kept open while it offers them.

One is kept for each of its addresses, and calls take them in turn, so that each instance gets its
share. A stream that has lived its time is replaced: behind a name that resolves to several
instances it comes to the next one, and the load follows those that come and go.

One that breaks is opened again soon, then less and less often, and at once when the participant was
asked anew what it offers; one that refuses to serve the stream is asked again only then. While no
stream is open, and for what does not travel well with others, calls are made one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import grpc
from opentelemetry.trace import Tracer

from coordinator.participants.base import Attempt
from coordinator.participants.stream import MAX_BATCH_BYTES, Stream, Unsent
from mesh.rpc.channel import Channel

_LIFE_SECONDS = 60.0
"""How long a stream lives, at least; at most twice that."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_ALONE_FROM = 3
"""From this attempt on a call travels alone: if it is what breaks the stream, it harms no other."""


class Streams:
    """Opens streams to one participant again and again. Made inside the event loop."""

    def __init__(
        self,
        participant: str,
        addresses: Sequence[Channel],
        *,
        unsent: Unsent,
        tracer: Tracer,
        chance: Callable[[], float],
    ) -> None:
        """A channel to each of its addresses; `unsent` sends by itself what a stream could not."""
        self._participant = participant
        self._unsent = unsent
        self._tracer = tracer
        self._chance = chance
        self.calls = 0
        """How many were given a stream."""
        self._offered = False
        self._told = asyncio.Event()
        self._streams: deque[Stream] = deque()
        self._alive: set[Stream] = set()
        self._keepers = [asyncio.create_task(self._keep(address)) for address in addresses]

    @property
    def open(self) -> int:
        """How many take calls now."""
        return sum(stream.open for stream in tuple(self._streams))  # read by another thread

    def offered(self) -> None:
        """The participant was asked, and serves streams."""
        self._offered = True
        self._told.set()

    def withdrawn(self) -> None:
        """The participant was asked, and serves no streams."""
        self._offered = False
        for stream in self._streams:
            stream.retire()

    def of(self, attempt: Attempt) -> Stream | None:
        """The stream to send an attempt by; None when it is to be called by itself."""
        if attempt.attempt >= _ALONE_FROM or len(attempt.request) > MAX_BATCH_BYTES:
            return None
        for _ in self._streams:
            self._streams.rotate()
            stream = self._streams[0]
            if stream.open:
                self.calls += 1
                return stream
        return None

    async def close(self) -> None:
        """End all streams; what is in flight hears so."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.wait(self._keepers)
        for stream in tuple(self._alive):
            stream.give_up()

    async def _keep(self, address: Channel) -> None:
        failures = 0
        while True:
            while not self._offered:
                await self._until_told(None)
            began = asyncio.get_running_loop().time()
            stream = self._begin(address)
            await self._until_closed(stream)
            self._streams.remove(stream)
            if stream.code is grpc.StatusCode.UNIMPLEMENTED:
                self._offered = False
            lived_seconds = asyncio.get_running_loop().time() - began
            failures = 0 if lived_seconds > _LONGEST_PAUSE_SECONDS else failures + 1
            await self._until_told(self._pause_seconds(failures))

    def _begin(self, address: Channel) -> Stream:
        stream = Stream(address, self._tracer, participant=self._participant, unsent=self._unsent)
        self._streams.append(stream)
        self._alive.add(stream)
        stream.over.add_done_callback(lambda _: self._alive.discard(stream))
        return stream

    async def _until_closed(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(_LIFE_SECONDS * (1 + self._chance())):
                await stream.closed.wait()
        except TimeoutError:
            stream.retire()

    async def _until_told(self, seconds: float | None) -> None:
        """Wait so long, or until the participant was asked anew."""
        self._told.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()

    def _pause_seconds(self, failures: int) -> float:
        if not failures:
            return 0
        longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 6), _LONGEST_PAUSE_SECONDS)
        return longest * (1 - self._chance() / 2)
