"""StartSaga with `wait`, and StartSagas, on the wire: bad input, slow readers, ends and drains."""

from __future__ import annotations

import asyncio
from collections import Counter as Count
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.api import start_sagas
from coordinator.core.model import SagaState
from coordinator.engine.ends import EndsElsewhere
from coordinator.participants.base import Done
from protos.saga.v1 import saga_pb2 as pb
from protos.saga.v1 import saga_pb2_grpc
from tests.integration.api.counter import Counter, open_counter
from tests.refusals import refused
from tests.unit.api.desk import KnownDefinitions, compiled, text
from tests.unit.engine.world import World

METHOD = "/saga.v1.SagaService/StartSagas"
RUNNING, COMPLETED = pb.SAGA_STATE_RUNNING, pb.SAGA_STATE_COMPLETED


@pytest.fixture
async def wide(world: World) -> AsyncIterator[Counter]:
    """A coordinator with room for many sagas."""
    async with open_counter(world, "wide", KnownDefinitions(), max_sagas=200_000) as wide:
        wide.desk.know(compiled("story", "a", "b"))
        yield wide


def start(saga_id: str, *, wait: bool = False, value: str = "in") -> pb.StartSagaRequest:
    return pb.StartSagaRequest(saga_id=saga_id, definition="story", input=text(value), wait=wait)


def message(*sagas: pb.StartSagaRequest) -> pb.StartSagasRequest:
    return pb.StartSagasRequest(sagas=sagas)


def of_bytes(counter: Counter) -> Any:  # noqa: ANN401 - a call of asyncio has no type
    """A stream on which anything can be sent."""
    call: Any = counter.channel.stream_stream
    return call(METHOD, response_deserializer=pb.StartSagasResponse.FromString)()


async def reports(stream: Any, count: int) -> list[tuple[str, int]]:  # noqa: ANN401 - as above
    told: list[tuple[str, int]] = []
    while len(told) < count:
        told += [(it.saga_id, it.state) for it in (await stream.read()).reports]
    return told


async def end(counter: Counter) -> None:
    await counter.desk.coordinator.answer("DO a 1")
    await counter.desk.coordinator.answer("DO b 1")


async def answer_everything(counter: Counter) -> None:
    while True:
        (await counter.desk.coordinator.participants.next()).answer(Done(b""))


# --- one call -------------------------------------------------------------------------


async def test_one_call_starts_a_saga_and_hears_its_end(counter: Counter) -> None:
    call = counter.sagas.StartSaga(start("saga-1", wait=True))
    await end(counter)
    assert (await call).saga.state == COMPLETED


async def test_a_call_that_waits_answers_before_its_deadline(counter: Counter) -> None:
    answer = await counter.sagas.StartSaga(start("saga-1", wait=True), timeout=0.5)
    assert answer.saga.state == RUNNING


async def test_a_call_that_waits_is_answered_when_the_server_drains(counter: Counter) -> None:
    call = counter.sagas.StartSaga(start("saga-1", wait=True))
    await counter.desk.coordinator.sent("DO a 1")
    stopping = asyncio.create_task(counter.server.stop())
    assert (await call).saga.state == RUNNING
    await stopping


# --- many -----------------------------------------------------------------------------


async def test_a_stream_tells_starts_and_ends_and_then_ends_itself(counter: Counter) -> None:
    stream = counter.sagas.StartSagas()
    await stream.write(message(start("saga-1", wait=True), start("saga-2")))
    await stream.write(message(start("saga-3", wait=True), start("no id!")))
    await stream.done_writing()
    working = asyncio.create_task(answer_everything(counter))
    told = Count([report async for message in stream for report in _pairs(message)])
    started = [(f"saga-{number}", RUNNING) for number in (1, 2, 3)]
    assert told == Count([*started, ("saga-1", COMPLETED), ("saga-3", COMPLETED), ("no id!", 0)])
    assert await stream.code() is grpc.StatusCode.OK
    working.cancel()


def _pairs(message: pb.StartSagasResponse) -> list[tuple[str, int]]:
    return [(report.saga_id, report.state) for report in message.reports]


@pytest.mark.parametrize(
    ("sent", "reason", "field"),
    [
        (b"\xff" * 100, "REQUEST_UNREADABLE", "request"),
        (
            message(start("big", value="x" * (4 << 20))).SerializeToString(),
            "REQUEST_TOO_LARGE",
            "request",
        ),
        (b"\n\x00" * 1_001, "INVALID_REQUEST", "sagas"),
        (b"\n\x00" * (2 << 20), "INVALID_REQUEST", "sagas"),
    ],
    ids=["garbage", "over 4 MiB", "1,001 sagas", "2 Mi sagas"],
)
async def test_a_message_that_makes_no_sense_ends_the_stream_in_words(
    counter: Counter, sent: bytes, reason: str, field: str
) -> None:
    stream = of_bytes(counter)
    await stream.write(message(start("saga-1", wait=True)).SerializeToString())
    assert await reports(stream, 1) == [("saga-1", RUNNING)]
    await stream.write(sent)
    async with refused() as refusal:
        await stream.read()
        await stream.read()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert (refusal.fields, refusal.domain) == ([field], "saga.v1")
    assert (await counter.sagas.GetSaga(pb.GetSagaRequest(saga_id="saga-1"))).saga.state == RUNNING


async def test_a_client_that_never_reads_is_held_back_and_nobody_else(
    wide: Counter, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "PLACES", 500)
    working = asyncio.create_task(answer_everything(wide))
    small_window = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{wide.server.port}", small_window) as channel:
        stream = saga_pb2_grpc.SagaServiceStub(channel).StartSagas()
        sending = asyncio.create_task(send(stream, 100_000))
        held, before = 0, -1
        while before != held:  # until nothing more is taken
            before = held
            await asyncio.sleep(0.5)
            held = len(world.store._sagas)
        other = wide.sagas.StartSagas()
        await other.write(message(start("other")))
        assert await reports(other, 1) == [("other", RUNNING)]
        assert not sending.done()
        assert 500 <= held < 2_500  # what is on the way counts as read
        told = Count(await reports(stream, held + 500))
        assert set(told.values()) == {1}
        for task in (working, sending):
            task.cancel()
        await asyncio.wait([working, sending])


async def send(stream: Any, count: int) -> None:  # noqa: ANN401 - as above
    for first in range(0, count, 500):
        ids = (f"saga-{number:<58}".replace(" ", "_") for number in range(first, first + 500))
        await stream.write(message(*map(start, ids)))


async def test_a_client_that_goes_away_leaves_its_sagas_running(
    counter: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    stream = counter.sagas.StartSagas()
    await stream.write(message(start("saga-1", wait=True)))
    assert await reports(stream, 1) == [("saga-1", RUNNING)]
    stream.cancel()
    while counter.desk.coordinator.engine.ends:
        await asyncio.sleep(0.01)
    await end(counter)
    await counter.desk.world.until(SagaState.COMPLETED)
    assert not caplog.records


async def test_a_drain_ends_streams_and_another_instance_goes_on(
    counter: Counter, world: World
) -> None:
    async with open_counter(world, "two", counter.desk.definitions) as other:
        stream = counter.sagas.StartSagas()
        await stream.write(message(start("saga-1", wait=True)))
        assert await reports(stream, 1) == [("saga-1", RUNNING)]
        stopping = asyncio.create_task(counter.server.stop())
        async with refused() as refusal:
            await stream.read()
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await stopping
        again = other.sagas.StartSagas()
        looking = asyncio.create_task(
            EndsElsewhere(world.reader, other.desk.coordinator.engine.ends).run()
        )
        await again.write(message(start("saga-1", wait=True)))
        await again.done_writing()
        assert await reports(again, 1) == [("saga-1", RUNNING)]
        await end(counter)
        assert await reports(again, 1) == [("saga-1", COMPLETED)]
        looking.cancel()
