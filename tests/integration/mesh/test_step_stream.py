"""mesh.v1.StepStream: a call of the stream is a call by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.code_pb2 import CANCELLED, DEADLINE_EXCEEDED

from mesh.border import MAX_REQUEST_BYTES
from mesh.errors import Conflict, MeshError, NotNow, RecordMissing, Rejected, Retry, read_refusal
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.step import StepCall, StepTypes
from protos.inventory.v1 import inventory_pb2
from protos.mesh.v1 import mesh_pb2 as pb
from tests.integration.mesh.stream_client import Stream, by_itself, call, compensation, until

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)

REFUSALS: dict[str, MeshError] = {
    "reject": Rejected("OUT_OF_STOCK", "none left", metadata={"product_id": "p1"}),
    "retry": Retry("DATABASE_UNAVAILABLE", "the database is away", retry_after_ms=250),
    "conflict": Conflict("STEP_BUSY", "ask again"),
    "expired": NotNow("STEP_EXPIRED", "too late", state="EXPIRED", allowed=["before"]),
    "missing": RecordMissing("STEP_RECORD_MISSING", "no record", metadata={"saga_id": "saga-1"}),
    "internal": MeshError("RESPONSE_TOO_LARGE", "the effect is undone"),
}


class Step:
    """A guarded step that does what the order id says."""

    def __init__(self) -> None:
        self.types = StepTypes.of("inventory.v1.ReserveStock")
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.leave = asyncio.Event()
        self.response_bytes = 0

    async def do(self, call: StepCall, request: Message) -> Message:
        assert isinstance(request, inventory_pb2.ReserveStockRequest)
        await self._obey(call, request.order_id)
        reservation = call.key + "." * self.response_bytes
        return inventory_pb2.ReserveStockResponse(reservation_id=reservation)

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        assert isinstance(compensation, inventory_pb2.ReserveStockCompensation)
        await self._obey(call, compensation.request.order_id)
        return inventory_pb2.ReserveStockCompensated()

    async def _obey(self, call: StepCall, order_id: str) -> None:
        self.begun.append(call.saga_id)
        if order_id in REFUSALS:
            raise REFUSALS[order_id]
        if order_id == "fail":
            raise ValueError("the card number is 4242")
        if order_id == "wait":
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                self.cancelled.append(call.saga_id)
                raise


@pytest.fixture
async def step() -> Step:
    return Step()


@pytest.fixture
async def server(step: Step) -> AsyncIterator[Server]:
    server = Server(SETTINGS)
    server.add_step(step)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture
async def stream(channel: grpc.aio.Channel) -> AsyncIterator[Stream]:
    stream = Stream(channel)
    yield stream
    stream.rpc.cancel()


TWINS = [
    call(),
    call(order_id="fail"),
    call(not_after_ms=5),
    call(not_after_ms=-5),
    call(not_after_ms=10**15),
    call(saga_id=""),
    call(saga_id="nothing/like an id"),
    call(step="", not_after_ms=-1),
    call(step="ReserveStock"),
    call(request=b"\xff\xff\xff"),
    call(request=b"\xff\xff\xff", saga_id=""),
    call(service="inventory.v1.TakeStock"),
    call(service=""),
    call(direction=pb.STEP_DIRECTION_UNSPECIFIED),
    call(order_id="o" * 100_000),
    compensation("", call_id=1),
    compensation("fail"),
    *(call(order_id=name) for name in REFUSALS),
    *(compensation(name) for name in REFUSALS),
]


@pytest.mark.parametrize("one", TWINS, ids=lambda one: str(one)[:80].replace("\n", " "))
async def test_a_call_is_answered_as_it_would_be_by_itself(
    one: pb.StepCall, channel: grpc.aio.Channel, stream: Stream
) -> None:
    (result,) = await stream.ask(one)

    assert result == await by_itself(channel, one)


async def test_answers_come_as_they_are_ready(step: Step, stream: Stream) -> None:
    await stream.send(call(1, "wait"), call(2), call(3, "reject"))
    await stream.read_until(2)
    assert set(stream.order) == {2, 3}

    step.leave.set()
    await stream.read_until(3)

    assert stream.order[2] == 1


async def test_what_is_ready_at_the_same_moment_is_answered_at_once(stream: Stream) -> None:
    await stream.ask(*(call(number) for number in range(1, 51)))

    assert stream.batches == [50]


async def test_a_call_too_late_is_cancelled_and_told_so(step: Step, stream: Stream) -> None:
    (result,) = await stream.ask(call(1, "wait", saga_id="late", timeout_ms=20))

    assert result.status.code == DEADLINE_EXCEEDED
    assert step.cancelled == ["late"]


async def test_a_call_that_was_too_late_from_the_beginning_is_not_performed(
    step: Step, stream: Stream
) -> None:
    (result,) = await stream.ask(call(1, timeout_ms=-1))

    assert result.status.code == DEADLINE_EXCEEDED
    assert step.begun == []


async def test_a_cancelled_call_is_answered_too(step: Step, stream: Stream) -> None:
    await stream.send(call(1, "wait", saga_id="one"), call(2, "wait", saga_id="two"))
    await until(lambda: len(step.begun) == 2)

    await stream.send(call(3), cancel=[1, 99])
    await stream.read_until(2)

    assert stream.results[1].status.code == CANCELLED
    assert step.cancelled == ["one"]
    assert 2 not in stream.results


async def test_a_stream_whose_client_has_sent_all_ends_when_all_is_answered(
    step: Step, stream: Stream
) -> None:
    await stream.send(call(1, "wait"))
    await stream.rpc.done_writing()
    await until(lambda: step.begun)

    step.leave.set()
    await stream.read_until(1)

    assert await ending(stream) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\xff\xff\xff", "REQUEST_UNREADABLE"),
        (b"\0" * (MAX_REQUEST_BYTES + 1), "REQUEST_TOO_LARGE"),
    ],
    ids=["garbage", "over 4 MiB"],
)
async def test_what_is_no_batch_ends_the_stream_in_words(
    garbage: bytes, reason: str, step: Step, stream: Stream, channel: grpc.aio.Channel
) -> None:
    await stream.send(call(1, "wait"), call(2))
    await until(lambda: len(step.begun) == 2)

    await stream.send_bytes(garbage)

    assert await ending(stream) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert step.cancelled == ["saga-1"]
    (again,) = await Stream(channel).ask(call(3))
    assert again.response


async def test_an_id_that_is_in_flight_is_not_used_twice(step: Step, stream: Stream) -> None:
    await stream.send(call(7, "wait"), call(7))

    assert await ending(stream) == (grpc.StatusCode.INVALID_ARGUMENT, "CALL_ID_REUSED")


async def ending(stream: Stream) -> tuple[grpc.StatusCode, str]:
    """Code and reason of the stream's end; what comes before it is read."""
    with suppress(grpc.aio.AioRpcError):  # its code is asked for below
        while isinstance(await stream.rpc.read(), pb.StepResultBatch):
            pass
    code, words = await stream.rpc.code(), await stream.rpc.details()
    refusal = read_refusal(code, words, await stream.rpc.trailing_metadata())
    return refusal.code, refusal.reason
