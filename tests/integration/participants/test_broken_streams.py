"""Step streams that break: whatever was on them is unknown once, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import NoReturn

import grpc
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from coordinator.core.model import FailureKind
from coordinator.participants import answers
from coordinator.participants.base import Answer, Done, Failed
from coordinator.participants.grpc import GrpcParticipants
from protos.mesh.v1 import mesh_pb2 as pb
from tests.integration.participants.participant import (
    DO,
    SERVICE,
    Context,
    Participant,
    Running,
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


async def test_calls_on_a_stream_that_breaks_are_unknown_once(streamed: Running) -> None:
    streamed.participant.behave = hang
    asked = asyncio.gather(*(streamed.ask(attempt) for attempt in many(100)))
    await until(streamed.participant.called)
    await streamed.server.stop(None)
    answers = await asked
    assert codes(answers) == {"UNAVAILABLE"}
    assert {a.failure.kind for a in answers if isinstance(a, Failed)} == {FailureKind.UNKNOWN}


async def test_a_participant_that_ends_the_stream_in_words_passes_them_on(
    streamed: Running,
) -> None:
    async def leave(batches: AsyncIterator[bytes], context: StreamContext) -> None:
        await anext(batches)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")

    await reopen(streamed, leave)
    answer = await streamed.ask(DO)
    assert isinstance(answer, Failed)
    assert (answer.failure.code, answer.failure.message) == ("UNAVAILABLE", "shutting down")


async def test_what_is_answered_before_the_end_of_a_stream_is_heard(streamed: Running) -> None:
    async def answer_and_leave(batches: AsyncIterator[bytes], context: StreamContext) -> None:
        first, _ = pb.StepBatch.FromString(await anext(batches)).calls
        await context.write(results(pb.StepResult(call_id=first.call_id, response=wrapped(b"1"))))

    await reopen(streamed, answer_and_leave)
    first, second = await ask_all(streamed.participants, many(2))
    assert first == Done(wrapped(b"1"))
    assert codes([second]) == {"UNAVAILABLE"}


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>no backend</html>",
        bytes(5 << 20),
        results(pb.StepResult(call_id=0)),
        results(pb.StepResult(call_id=-1)),
        results(pb.StepResult(call_id=1 << 60)),
    ],
    ids=["no-batch", "too-large", "no-id", "negative-id", "id-of-no-call"],
)
async def test_garbage_ends_the_stream_and_makes_its_calls_unknown(
    streamed: Running, garbage: bytes
) -> None:
    async def babble(batches: AsyncIterator[bytes], context: StreamContext) -> None:
        await anext(batches)
        await context.write(garbage)
        await asyncio.Event().wait()

    await reopen(streamed, babble)
    with capture_logs() as logs:
        assert codes(await ask_all(streamed.participants, many(3))) == {"UNAVAILABLE"}
    assert Counter(line["event"] for line in logs)["stream.broken"] == 1
    await until_streamed(streamed.participants)
    assert streamed.participant.stream.begun >= 3


async def test_a_bug_in_reading_an_answer_leaves_no_call_without_one(
    streamed: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(answers, "done", fail)
        async with asyncio.timeout(10):
            heard = await ask_all(streamed.participants, many(3))

    assert codes(heard) == {"INTERNAL"}


async def test_an_answer_that_comes_twice_is_heard_once(streamed: Running) -> None:
    async def stammer(batches: AsyncIterator[bytes], context: StreamContext) -> None:
        async for received in batches:
            for call in pb.StepBatch.FromString(received).calls:
                answer = pb.StepResult(call_id=call.call_id, response=wrapped(b"fine"))
                await context.write(results(answer, answer))
                await context.write(results(answer))

    await reopen(streamed, stammer)
    answers: list[Answer] = []
    streamed.participants.call(DO, answers.append)
    for _ in range(10):
        assert await streamed.ask(DO) == Done(wrapped(b"fine"))
    assert answers == [Done(wrapped(b"fine"))]


async def test_whenever_a_participant_dies_each_call_is_sent_once_and_heard_once() -> None:
    await asyncio.gather(*(_die_and_come_back(random.Random(seed)) for seed in range(6)))


async def _die_and_come_back(chance: random.Random) -> None:
    async def behave(request: bytes, context: Context) -> bytes:
        await asyncio.sleep(chance.random() * 0.01)
        return await echo(request, context)

    participant = Participant(behave)
    server, port = await serve(participant)
    participants = GrpcParticipants({"payment": f"127.0.0.1:{port}"})
    participants.route([contract("payment", SERVICE, STREAM_SERVICE)])
    heard: Counter[str] = Counter()
    for life in range(3):
        await until_streamed(participants)
        calling = asyncio.create_task(_call(participants, f"life-{life}", heard, chance))
        await asyncio.sleep(chance.random() * 0.03)
        await server.stop(None)
        server, _ = await serve(participant, port)
        await calling
    await participants.close()
    await server.stop(None)
    sent = Counter(str(seen.metadata["saga-id"]) for seen in participant.seen)
    assert set(heard.values()) == set(sent.values()) == {1}


async def _call(
    participants: GrpcParticipants, name: str, heard: Counter[str], chance: random.Random
) -> None:
    """Make calls, now and then a pause, and wait until all are answered."""

    def hear(saga_id: str, _answer: Answer) -> None:
        heard[saga_id] += 1

    sagas = {f"{name}-{number}" for number in range(60)}
    for saga_id in sagas:
        participants.call(replace(PATIENT, saga_id=saga_id), partial(hear, saga_id))
        if chance.random() < 0.3:
            await asyncio.sleep(0.001)
    async with asyncio.timeout(20):
        while not heard.keys() >= sagas:
            await asyncio.sleep(0.001)
