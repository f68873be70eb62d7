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
from coordinator.participants.stream import MAX_BATCH_BYTES, Run, Stream, Unsent

SERVICE = "mesh.v1.StepStream"
METHOD = f"/{SERVICE}/Run"

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
        addresses: Sequence[grpc.aio.Channel],
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
        self._lives: set[asyncio.Task[None]] = set()
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
            if self._streams[0].open:
                self.calls += 1
                return self._streams[0]
        return None

    async def close(self) -> None:
        """End all streams; what is in flight hears so."""
        ending = {*self._keepers, *self._lives}
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)

    async def _keep(self, address: grpc.aio.Channel) -> None:
        failures, run = 0, address.stream_stream(METHOD, None, None)
        while True:
            while not self._offered:
                await self._until_told(None)
            began = asyncio.get_running_loop().time()
            stream = self._begin(run(None))
            await self._until_closed(stream)
            self._streams.remove(stream)
            if stream.code is grpc.StatusCode.UNIMPLEMENTED:
                self._offered = False
            lived_seconds = asyncio.get_running_loop().time() - began
            failures = 0 if lived_seconds > _LONGEST_PAUSE_SECONDS else failures + 1
            await self._until_told(self._pause_seconds(failures))

    def _begin(self, run: Run) -> Stream:
        stream = Stream(run, self._tracer, participant=self._participant, unsent=self._unsent)
        self._streams.append(stream)
        self._lives.add(stream.over)
        stream.over.add_done_callback(self._lives.discard)
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
