"""A step for tests of step streams: the order id says what it does."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message
from opentelemetry import trace

from mesh.errors import Conflict, MeshError, NotNow, RecordMissing, Rejected, Retry
from mesh.step import StepCall, StepTypes
from protos.inventory.v1 import inventory_pb2

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
        self.trace_ids: list[int] = []
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
        self.trace_ids.append(trace.get_current_span().get_span_context().trace_id)
        if order_id in REFUSALS:
            raise REFUSALS[order_id]
        if order_id == "fail":
            raise ValueError("the card number is 4242")
        if order_id.startswith("wait"):
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                self.cancelled.append(call.saga_id)
                raise
