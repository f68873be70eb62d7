"""What a step stream does that calls by themselves do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec.structs import replace

from coordinator.participants.base import Answer, Attempt, Failed
from coordinator.participants.grpc import GrpcParticipants
from coordinator.participants.stream import MAX_BATCH_BYTES, MAX_BATCH_CALLS
from tests.integration.participants.participant import (
    DO,
    Context,
    Running,
    ask,
    echo,
    serve,
    until_streamed,
    wrapped,
)
from tests.integration.participants.step_stream import Script, StreamContext

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


async def serve_again(running: Running, script: Script) -> None:
    """Let the participant do this with its next stream, and wait until that is open."""
    running.participant.stream.script = script
    await running.server.stop(None)
    await until_streamed(running.participants, 0)
    running.server, _ = await serve(running.participant, running.port)
    await until_streamed(running.participants)


async def test_calls_of_one_turn_travel_together(streamed: Running) -> None:
    assert codes(await ask_all(streamed.participants, many(200))) == {"OK"}
    (batch,) = streamed.participant.stream.batches
    assert [call.saga_id for call in batch.calls] == [f"saga-{n}" for n in range(200)]


async def test_a_batch_has_a_limit_of_calls(streamed: Running) -> None:
    await ask_all(streamed.participants, many(2 * MAX_BATCH_CALLS + 1))
    sizes = [len(batch.calls) for batch in streamed.participant.stream.batches]
    assert sizes == [MAX_BATCH_CALLS, MAX_BATCH_CALLS, 1]


async def test_a_batch_has_a_limit_of_bytes(streamed: Running) -> None:
    large = replace(PATIENT, request=wrapped(bytes(MAX_BATCH_BYTES * 3 // 5)))
    assert codes(await ask_all(streamed.participants, many(5, large))) == {"OK"}
    assert [len(batch.calls) for batch in streamed.participant.stream.batches] == [2, 2, 1]


async def test_a_call_that_fills_a_batch_alone_travels_by_itself(streamed: Running) -> None:
    large = replace(PATIENT, request=wrapped(bytes(2 << 20)))
    assert codes(await ask_all(streamed.participants, [large, DO])) == {"OK"}
    assert [len(batch.calls) for batch in streamed.participant.stream.batches] == [1]


async def test_a_call_that_failed_again_travels_by_itself(streamed: Running) -> None:
    attempts = [replace(DO, attempt=attempt) for attempt in (1, 2, 3, 4)]
    assert codes(await ask_all(streamed.participants, attempts)) == {"OK"}
    assert [len(batch.calls) for batch in streamed.participant.stream.batches] == [2]
    assert len(streamed.participant.seen) == 4


async def test_a_call_without_an_answer_is_called_off(streamed: Running) -> None:
    streamed.participant.behave = hang
    started = asyncio.get_running_loop().time()
    (answer,) = await ask_all(streamed.participants, [replace(DO, timeout_ms=50)])
    assert asyncio.get_running_loop().time() - started >= 0.05
    assert codes([answer]) == {"DEADLINE_EXCEEDED"}
    await until(streamed.participant.stream.cancelled)


async def test_both_ways_say_the_same_of_a_call_whose_time_is_up(
    alone: Running, streamed: Running
) -> None:
    for running in (alone, streamed):
        running.participant.behave = hang
    short = replace(DO, timeout_ms=50)
    assert await alone.ask(short) == await streamed.ask(short)


async def test_a_late_answer_is_dropped_and_the_stream_goes_on(streamed: Running) -> None:
    may_answer = asyncio.Event()

    async def behave(request: bytes, context: Context) -> bytes:
        if request == b"slow":
            await may_answer.wait()
        return await echo(request, context)

    streamed.participant.behave = behave
    slow = asyncio.create_task(streamed.ask(replace(DO, request=b"slow", timeout_ms=200)))
    await until(streamed.participant.called)
    await streamed.ask(DO)  # so the stream is heard of, and not given up for the slow call
    assert codes([await slow]) == {"DEADLINE_EXCEEDED"}
    may_answer.set()
    assert codes(await ask_all(streamed.participants, many(3))) == {"OK"}
    assert streamed.participant.stream.begun == 1


async def test_a_participant_that_does_not_read_holds_nobody_up(streamed: Running) -> None:
    """What was never sent goes another way in the time that it has left."""

    async def deaf(_batches: AsyncIterator[bytes], context: StreamContext) -> None:
        await context.send_initial_metadata(())
        await asyncio.Event().wait()

    await serve_again(streamed, deaf)
    large = replace(DO, request=wrapped(bytes(600 << 10)))
    first = asyncio.gather(*(streamed.ask(a) for a in many(8, replace(large, timeout_ms=200))))
    second = asyncio.gather(*(streamed.ask(a) for a in many(8, large)))
    assert "DEADLINE_EXCEEDED" in codes(await first)
    assert codes(await second) == {"OK"}
