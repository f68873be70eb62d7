"""Calls by a channel, each of which must have heard its outcome exactly once at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from mesh.rpc.calling import Outcome
from mesh.rpc.channel import Channel
from mesh.rpc.headers import Ending, Field
from mesh.rpc.streaming import StreamCall

PATH = "/test.v1.Charge/Do"


class Asked:
    """One call, and what was heard of it."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.heard_at: list[float] = []
        self._heard = asyncio.Event()

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.heard_at.append(round(asyncio.get_running_loop().time(), 3))
        self._heard.set()

    async def outcome(self) -> Outcome:
        await self._heard.wait()
        return self.outcomes[0]

    async def ending(self) -> Ending:
        """How it ended; fails when there was a response."""
        ending = await self.outcome()
        assert isinstance(ending, Ending), ending
        return ending

    async def code(self) -> grpc.StatusCode:
        return (await self.ending()).code


class Listening:
    """A call with streams, and what was heard of it."""

    def __init__(self) -> None:
        self.begins = asyncio.Event()
        self.accepts = asyncio.Event()
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.endings: list[Ending] = []
        self.over = asyncio.Event()
        self.sent: list[bytes] = []
        """Messages that are on their way."""
        self.call: StreamCall | None = None

    def begun(self) -> None:
        self.begins.set()

    def accepted(self) -> None:
        self.accepts.set()

    def heard(self, message: bytes) -> None:
        self.messages.put_nowait(message)

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)
        self.over.set()

    def write(self, message: bytes) -> None:
        assert self.call is not None
        self.call.write(message, lambda: self.sent.append(message))

    async def ending(self) -> Ending:
        await self.over.wait()
        return self.endings[0]


class Caller:
    """A channel, and all calls that were made by it."""

    def __init__(self, target: str, *, limit: int) -> None:
        self.channel = Channel(target, limit=limit)
        self.asked: list[Asked] = []

    def call(
        self, request: bytes = b"", *, timeout_ms: int = 5_000, metadata: Sequence[Field] = ()
    ) -> Asked:
        asked = Asked()
        self.asked.append(asked)
        self.channel.call(PATH, request, metadata, timeout_ms, asked.ended)
        assert not asked.outcomes, "heard before call() returned"
        return asked

    def stream(self, path: str = PATH) -> Listening:
        listening = Listening()
        listening.call = self.channel.stream(path, listening)
        return listening

    def holds_nothing(self) -> bool:
        """Whether nothing is left of any call."""
        channel = self.channel
        return not (channel._calls or channel._waiting or channel._concluded) and not any(
            link.streams or link._writers or link.h2.queued_body_size()
            for link in channel.connections
        )


@asynccontextmanager
async def calling(target: str, *, limit: int = 4 << 20) -> AsyncIterator[Caller]:
    caller = Caller(target, limit=limit)
    try:
        yield caller
    finally:
        await caller.channel.close()
        await turns(3 + len(caller.asked) // 32)
        heard = [len(asked.outcomes) for asked in caller.asked]
        assert heard == [1] * len(heard), "each call has exactly one outcome"
        assert caller.holds_nothing()
        assert not caller.channel.connections


async def turns(count: int = 10) -> None:
    """Let everybody who can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)
