"""What the tests of step streams share."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from coordinator.participants.base import Answer, Attempt, Failed
from coordinator.participants.grpc import GrpcParticipants
from protos.mesh.v1 import mesh_pb2 as pb
from tests.integration.participants.participant import (
    DO,
    SERVICE,
    Context,
    Running,
    ask,
    contract,
    until_streamed,
)
from tests.integration.participants.step_stream import STREAM_SERVICE, Script

PATIENT = replace(DO, timeout_ms=60_000)


def many(count: int, attempt: Attempt = PATIENT) -> list[Attempt]:
    return [replace(attempt, saga_id=f"saga-{number}") for number in range(count)]


async def ask_all(participants: GrpcParticipants, attempts: list[Attempt]) -> list[Answer]:
    return await asyncio.gather(*(ask(participants, attempt) for attempt in attempts))


def codes(answers: list[Answer]) -> set[str]:
    return {answer.failure.code if isinstance(answer, Failed) else "OK" for answer in answers}


async def hang(_request: bytes, _context: Context) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await condition.wait()


async def reopen(running: Running, script: Script) -> None:
    """Let the participant do this with its next stream, and wait until that is open."""
    running.participant.stream.script = script
    running.participants.route([contract("payment", SERVICE)])
    await until_streamed(running.participants, 0)
    running.participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    await until_streamed(running.participants)


def results(*answers: pb.StepResult) -> bytes:
    """One batch of them."""
    return pb.StepResultBatch(results=answers).SerializeToString()
