"""What a step stream does that calls by themselves do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from msgspec.structs import replace

from coordinator.participants.base import Done
from coordinator.participants.grpc import GrpcParticipants
from coordinator.participants.stream import MAX_BATCH_BYTES, MAX_BATCH_CALLS
from protos.mesh.v1 import mesh_pb2 as pb
from tests.integration.participants.participant import (
    DO,
    SERVICE,
    Context,
    Participant,
    Running,
    ask,
    contract,
    echo,
    serve,
    until_streamed,
    wrapped,
)
from tests.integration.participants.step_stream import STREAM_SERVICE, StreamContext
from tests.integration.participants.streaming import (
    PATIENT,
    ask_all,
    codes,
    hang,
    many,
    reopen,
    results,
    until,
)


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
    await until(streamed.participant.stream.cancelled)
    assert [*streamed.participant.stream.batches[-1].cancelled_call_ids] == [1]
    may_answer.set()
    assert codes(await ask_all(streamed.participants, many(3))) == {"OK"}
    assert streamed.participant.stream.begun == 1


async def test_a_participant_that_does_not_read_holds_nobody_up(streamed: Running) -> None:
    """What was never sent goes another way in the time that it has left."""

    async def deaf(_batches: AsyncIterator[bytes], context: StreamContext) -> None:
        await asyncio.Event().wait()

    await reopen(streamed, deaf)
    large = replace(DO, request=wrapped(bytes(600 << 10)))
    first = asyncio.gather(*(streamed.ask(a) for a in many(8, replace(large, timeout_ms=200))))
    second = asyncio.gather(*(streamed.ask(a) for a in many(8, large)))
    assert "DEADLINE_EXCEEDED" in codes(await first)
    assert codes(await second) == {"OK"}


async def test_an_answer_with_a_status_of_ok_is_one(streamed: Running) -> None:
    async def explicit(batches: AsyncIterator[bytes], context: StreamContext) -> None:
        async for received in batches:
            for call in pb.StepBatch.FromString(received).calls:
                answer = pb.StepResult(call_id=call.call_id, response=wrapped(b"fine"))
                answer.status.SetInParent()
                await context.write(results(answer))

    await reopen(streamed, explicit)
    assert await streamed.ask(DO) == Done(wrapped(b"fine"))


async def test_a_participant_that_refuses_the_stream_is_asked_again_when_its_contract_is() -> None:
    participant = Participant(echo)

    async def refuse(_batches: AsyncIterator[bytes], context: StreamContext) -> None:
        refused.set()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    refused, participant.stream.headers = asyncio.Event(), False
    participant.stream.script = refuse
    server, port = await serve(participant)
    participants = GrpcParticipants({"payment": f"127.0.0.1:{port}"})
    participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    await until(refused)
    assert codes(await ask_all(participants, many(20))) == {"OK"}
    assert participant.stream.begun == 1
    participant.stream.script = participant.stream.serve
    participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    await until_streamed(participants)
    await participants.close()
    await server.stop(None)


async def test_a_participant_that_says_nothing_at_first_gets_its_calls_by_stream() -> None:
    """It need not send headers before its first answer, though ours do."""
    participant = Participant(echo)

    async def terse(batches: AsyncIterator[bytes], context: StreamContext) -> None:
        async for received in batches:
            for call in pb.StepBatch.FromString(received).calls:
                answer = pb.StepResult(call_id=call.call_id, response=wrapped(b"fine"))
                await context.write(results(answer))

    participant.stream.headers, participant.stream.script = False, terse
    server, port = await serve(participant)
    participants = GrpcParticipants({"payment": f"127.0.0.1:{port}"})
    participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    await until_streamed(participants)
    assert await ask(participants, DO) == Done(wrapped(b"fine"))
    await participants.close()
    await server.stop(None)


async def test_a_participant_that_offers_streams_no_more_is_called_by_itself(
    streamed: Running,
) -> None:
    streamed.participant.behave = slowly = Slowly()
    asked = asyncio.create_task(streamed.ask(DO))
    await until(streamed.participant.called)
    streamed.participants.route([contract("payment", SERVICE)])
    answered = asyncio.create_task(streamed.ask(replace(DO, saga_id="saga-2")))
    slowly.may_answer.set()
    assert codes([await asked, await answered]) == {"OK"}
    (ways,) = streamed.participants.ways
    assert (ways.streams, ways.streamed, ways.alone) == (0, 1, 1)


class Slowly:
    """Echoes when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def __call__(self, request: bytes, context: Context) -> bytes:
        await self.may_answer.wait()
        return await echo(request, context)


async def test_addresses_of_one_participant_have_a_stream_each() -> None:
    one, two = Participant(echo), Participant(echo)
    (first, port), (second, other_port) = await serve(one), await serve(two)
    participants = GrpcParticipants({"payment": f"ipv4:127.0.0.1:{port},127.0.0.1:{other_port}"})
    participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    await until_streamed(participants, 2)
    assert codes(await ask_all(participants, many(10))) == {"OK"}
    assert (len(one.seen), len(two.seen)) == (5, 5)
    await first.stop(None)
    await until_streamed(participants, 1)
    assert codes(await ask_all(participants, many(10))) == {"OK"}
    assert (len(one.seen), len(two.seen)) == (5, 15)
    await participants.close()
    await second.stop(None)
