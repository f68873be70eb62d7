"""A client of mesh.v1.StepStream for tests, and the same calls one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from mesh.errors import read_refusal
from mesh.step import SAGA_OUTCOME
from protos.inventory.v1 import inventory_pb2
from protos.mesh.v1 import mesh_pb2 as pb

RUN = "/mesh.v1.StepStream/Run"
SERVICE = "inventory.v1.ReserveStock"
_NAMES = {pb.STEP_DIRECTION_DO: "Do", pb.STEP_DIRECTION_COMPENSATE: "Compensate"}


def call(call_id: int = 1, order_id: str = "", **fields: Any) -> pb.StepCall:  # noqa: ANN401 - fields of StepCall
    """A Do of the sample step; the order id says what it does."""
    request = inventory_pb2.ReserveStockRequest(order_id=order_id)
    values: dict[str, Any] = {
        "call_id": call_id,
        "service": SERVICE,
        "direction": pb.STEP_DIRECTION_DO,
        "saga_id": "saga-1",
        "step": "reserve_stock",
        "request": request.SerializeToString(),
        "timeout_ms": 60_000,
    }
    return pb.StepCall(**values | fields)


def compensation(order_id: str, **fields: Any) -> pb.StepCall:  # noqa: ANN401 - fields of StepCall
    """A Compensate of the sample step."""
    message = inventory_pb2.ReserveStockCompensation()
    message.request.order_id = order_id
    direction = pb.STEP_DIRECTION_COMPENSATE
    return call(direction=direction, request=message.SerializeToString(), **fields)


class Stream:
    """One stream; `results` are all that was read, by call id."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_stream(RUN, None, pb.StepResultBatch.FromString)
        self.rpc = method()  # written to by hand, without an iterator
        self.results: dict[int, pb.StepResult] = {}
        self.order: list[int] = []
        self.batches: list[int] = []
        """How many answers were in each."""

    async def send(self, *calls: pb.StepCall, cancel: Iterable[int] = ()) -> None:
        """Send one batch."""
        await self.send_bytes(pb.StepBatch(calls=calls, cancelled_call_ids=cancel))

    async def send_bytes(self, batch: Message | bytes) -> None:
        """Send a batch, or what is none."""
        await self.rpc.write(batch if isinstance(batch, bytes) else batch.SerializeToString())

    async def read_until(self, count: int) -> None:
        """Read until there are this many answers."""
        while len(self.order) < count:
            batch = await self.rpc.read()
            assert isinstance(batch, pb.StepResultBatch), await self.rpc.code()
            self.batches.append(len(batch.results))
            for result in batch.results:
                self.order.append(result.call_id)
                self.results[result.call_id] = result

    async def ask(self, *calls: pb.StepCall) -> list[pb.StepResult]:
        """Send one batch and read its answers, in its order."""
        await self.send(*calls)
        await self.read_until(len(self.order) + len(calls))
        return [self.results[one.call_id] for one in calls]


async def by_itself(channel: grpc.aio.Channel, one: pb.StepCall) -> pb.StepResult:
    """What the same call by itself is answered, told as a result."""
    metadata = [("saga-id", one.saga_id), ("saga-step", one.step)]
    if one.not_after_ms:
        metadata.append(("saga-not-after", str(one.not_after_ms)))
    if one.traceparent:
        metadata.append(("traceparent", one.traceparent))
    path = f"/{one.service}/{_NAMES.get(one.direction, 'Undo')}"
    rpc = channel.unary_unary(path, None, None)(one.request, metadata=metadata)
    code, trailing = await rpc.code(), dict(await rpc.trailing_metadata())
    if code is grpc.StatusCode.OK:
        return pb.StepResult(call_id=one.call_id, response=await rpc)
    details = trailing.get("grpc-status-details-bin")
    status = Status(code=code.value[0], message=await rpc.details())
    if isinstance(details, bytes):
        status = Status.FromString(details)
    rejected = trailing.get(SAGA_OUTCOME) == "rejected"
    return pb.StepResult(call_id=one.call_id, status=status, rejected=rejected)


async def until(condition: Any) -> None:  # noqa: ANN401 - a function that tells
    """Wait for a state of the server, which shares this loop."""
    while not condition():
        await asyncio.sleep(0.001)


async def ending(stream: Stream) -> tuple[grpc.StatusCode, str]:
    """Code and reason of the stream's end; what comes before it is read."""
    with suppress(grpc.aio.AioRpcError):  # its code is asked for below
        while isinstance(await stream.rpc.read(), pb.StepResultBatch):
            pass
    code, words = await stream.rpc.code(), await stream.rpc.details()
    refusal = read_refusal(code, words, await stream.rpc.trailing_metadata())
    return refusal.code, refusal.reason
