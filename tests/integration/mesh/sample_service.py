"""A service for tests of the server: a step and a business API that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import Message
from typing_extensions import override

from mesh.errors import Conflict, Rejected
from mesh.rpc.served import Context
from mesh.step import StepCall, StepTypes
from protos.inventory.v1 import inventory_pb2
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

METADATA = (("saga-id", "saga-1"), ("saga-step", "reserve_stock"))


class Step:
    """A guarded step; the request's order_id says what happens."""

    def __init__(self) -> None:
        self.types = StepTypes.of("inventory.v1.ReserveStock")
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()

    async def do(self, call: StepCall, request: Message) -> Message:
        assert isinstance(request, inventory_pb2.ReserveStockRequest)
        match request.order_id:
            case "reject":
                raise Rejected("OUT_OF_STOCK", "none left", metadata={"product_id": "p1"})
            case "conflict":
                raise Conflict("STEP_BUSY", "ask again")
            case "fail":
                raise ValueError("the card number is 4242")
            case "wait":
                self.entered.set()
                await self.leave.wait()
        return inventory_pb2.ReserveStockResponse(reservation_id=call.key)

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        assert isinstance(compensation, inventory_pb2.ReserveStockCompensation)
        if compensation.request.order_id == "reject":
            raise Rejected("OUT_OF_STOCK", "a bug of the step")
        return inventory_pb2.ReserveStockCompensated()


class Sagas(saga_pb2_grpc.SagaServiceServicer):
    """WatchSaga sends one event, and then does what the saga id says."""

    @override
    async def WatchSaga(
        self, request: saga_pb2.WatchSagaRequest, context: Context
    ) -> AsyncIterator[saga_pb2.WatchSagaResponse]:
        yield saga_pb2.WatchSagaResponse(event=saga_pb2.SagaEvent(revision=1))
        match request.saga_id:
            case "endless":
                await asyncio.Event().wait()
            case "conflict":
                raise Conflict("LOST", "watch again")

    @override
    async def GetSaga(
        self, request: saga_pb2.GetSagaRequest, context: Context
    ) -> saga_pb2.GetSagaResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, "by hand")
