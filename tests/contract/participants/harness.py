"""One participant called `test` that serves two steps, seen through each implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2

from coordinator.core.model import Failure, FailureKind
from coordinator.participants.base import Answer, Attempt, Done, Failed, Participants
from coordinator.participants.grpc import GrpcParticipants
from coordinator.participants.memory import MemoryParticipants
from tests.integration.participants.participant import (
    OTHER_SERVICE,
    SERVICE,
    Context,
    Health,
    Participant,
    contract,
    serve,
    until_streamed,
    wrapped,
)
from tests.integration.participants.step_stream import STREAM_SERVICE

RESPONSE = wrapped(b"fine")


class Rig(Protocol):
    """The participant's side, and the coordinator's view of it."""

    @property
    def participants(self) -> Participants:
        """What is tested."""
        ...

    async def hear(self) -> None:
        """From now on it is known who serves what."""
        ...

    def report(self, *, serving: bool) -> None:
        """What its health service says from now on."""
        ...

    def call(self, attempt: Attempt, *, fine: bool) -> list[Answer]:
        """Call it; it answers RESPONSE or UNAVAILABLE. The list fills with what is heard."""
        ...


class MemoryRig:
    """The shipped fake."""

    def __init__(self) -> None:
        self.participants = MemoryParticipants()
        self.participants.unheard |= {SERVICE, OTHER_SERVICE}

    async def hear(self) -> None:
        self.participants.unheard.clear()

    def report(self, *, serving: bool) -> None:
        away = self.participants.away
        away.discard("test") if serving else away.add("test")

    def call(self, attempt: Attempt, *, fine: bool) -> list[Answer]:
        answers: list[Answer] = []
        self.participants.call(attempt, answers.append)
        self._answering = asyncio.ensure_future(self._answer(fine=fine))
        return answers

    async def _answer(self, *, fine: bool) -> None:
        failure = Failure(kind=FailureKind.UNKNOWN, code="UNAVAILABLE", reason="UNAVAILABLE")
        (await self.participants.next()).answer(Done(RESPONSE) if fine else Failed(failure))


class GrpcRig:
    """The real thing, over a connection."""

    def __init__(
        self, participants: GrpcParticipants, participant: Participant, *, streams: bool
    ) -> None:
        self.participants = participants
        self._streams = streams
        self._participant = participant

    async def hear(self) -> None:
        self.participants.route([contract("test", SERVICE, OTHER_SERVICE, STREAM_SERVICE)])
        await until_streamed(self.participants, int(self._streams))

    def report(self, *, serving: bool) -> None:
        assert self._participant.health is not None
        says = health_pb2.HealthCheckResponse
        self._participant.health.state = says.SERVING if serving else says.NOT_SERVING

    def call(self, attempt: Attempt, *, fine: bool) -> list[Answer]:
        async def behave(_request: bytes, context: Context) -> bytes:
            if not fine:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            return RESPONSE

        self._participant.behave = behave
        answers: list[Answer] = []
        self.participants.call(attempt, answers.append)
        return answers


@asynccontextmanager
async def grpc_rig(*, streams: bool) -> AsyncIterator[Rig]:
    """A rig with a server of its own."""
    participant = Participant(_never_called, Health())
    server, port = await serve(participant)
    participants = GrpcParticipants({"test": f"127.0.0.1:{port}"}, streams=streams)
    try:
        yield GrpcRig(participants, participant, streams=streams)
    finally:
        await participants.close()
        await server.stop(None)


async def _never_called(_request: bytes, _context: Context) -> bytes:
    raise AssertionError("called before a test said how it answers")
