"""A participant in this process whose every answer a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2
from msgspec.structs import replace
from opentelemetry.trace import TracerProvider

from coordinator.core.model import Direction
from coordinator.participants.base import Answer, Attempt, Contract
from coordinator.participants.grpc import GrpcParticipants
from tests.integration.participants.step_stream import STREAM_SERVICE, StepStream

SERVICE, OTHER_SERVICE = "test.v1.Charge", "test.v1.Refund"
Context = grpc.aio.ServicerContext[bytes, bytes]
Behave = Callable[[bytes, Context], Awaitable[bytes]]


@dataclass
class Seen:
    """One call as the participant saw it."""

    method: str
    request: bytes
    metadata: dict[str, str | bytes]
    time_remaining: float


@dataclass
class Health:
    """Answers `grpc.health.v1.Health/Check` when it may."""

    state: health_pb2.HealthCheckResponse.ServingStatus = health_pb2.HealthCheckResponse.SERVING
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        check = grpc.unary_unary_rpc_method_handler(self._check)
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})

    async def _check(self, _request: bytes, _context: Context) -> bytes:
        await self.may_answer.wait()
        answer = health_pb2.HealthCheckResponse(status=self.state)
        return bytes(answer.SerializeToString())


@dataclass
class Participant:
    """Serves two steps; every method answers with `behave`, in bytes."""

    behave: Behave
    health: Health | None = None
    """None: it has no health service."""
    seen: list[Seen] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.stream = StepStream(self._perform)

    def handlers(self) -> tuple[grpc.GenericRpcHandler[bytes, bytes], ...]:
        steps = tuple(
            grpc.method_handlers_generic_handler(
                service, {name: self._handler(f"{service}/{name}") for name in ("Do", "Compensate")}
            )
            for service in (SERVICE, OTHER_SERVICE)
        )
        handlers = (*steps, self.stream.handler())
        return (*handlers, self.health.handler()) if self.health else handlers

    def _handler(self, method: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handle(request: bytes, context: Context) -> bytes:
            return await self._perform(method, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _perform(self, method: str, request: bytes, context: Context) -> bytes:
        metadata = dict(cast("Iterable[tuple[str, str | bytes]]", context.invocation_metadata()))
        self.seen.append(Seen(method, request, metadata, context.time_remaining()))
        self.called.set()
        return await self.behave(request, context)


def wrapped(content: bytes) -> bytes:
    """A message with these bytes in it."""
    return BytesValue(value=content).SerializeToString()


async def echo(request: bytes, _context: Context) -> bytes:
    return wrapped(b"answer to " + request)


@dataclass
class Running:
    """A participant and a coordinator's view of it."""

    participant: Participant
    server: grpc.aio.Server
    port: int
    participants: GrpcParticipants

    async def ask(self, attempt: Attempt) -> Answer:
        return await ask(self.participants, attempt)


async def serve(participant: Participant, port: int = 0) -> tuple[grpc.aio.Server, int]:
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 4 << 20),
        ("grpc.http2.bdp_probe", 0),  # so that one that does not read is soon sent no more
    ]
    server = grpc.aio.server(handlers=participant.handlers(), options=options)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


def contract(name: str, *services: str) -> Contract:
    return Contract(participant=name, services=frozenset(services), files=())


DO = Attempt(
    saga_id="saga-1",
    step="charge_payment",
    service=SERVICE,
    direction=Direction.DO,
    attempt=1,
    request=b"request",
    timeout_ms=5_000,
)
COMPENSATE = replace(DO, direction=Direction.COMPENSATE)


async def ask(participants: GrpcParticipants, attempt: Attempt) -> Answer:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    participants.call(attempt, answer.set_result)
    assert not answer.done(), "answered before call() returned"
    return await answer


async def until_streamed(participants: GrpcParticipants, streams: int = 1) -> None:
    """Wait until so many streams are open."""
    async with asyncio.timeout(10):
        while sum(ways.streams for ways in participants.ways) != streams:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    tracer_provider: TracerProvider | None = None,
    *,
    health: Health | None = None,
    streams: bool = False,
) -> AsyncIterator[Running]:
    """With `streams`, calls travel on a stream from the beginning."""
    participant = Participant(echo, health)
    server, port = await serve(participant)
    targets = {"payment": f"127.0.0.1:{port}"}
    participants = GrpcParticipants(targets, tracer_provider=tracer_provider, streams=streams)
    participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    running = Running(participant, server, port, participants)
    if streams:
        await until_streamed(participants)
    try:
        yield running
    finally:
        await participants.close()
        await running.server.stop(None)
