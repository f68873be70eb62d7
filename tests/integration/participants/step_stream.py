"""A step stream written by hand: each call is performed by what would have performed it by itself.

So one test can say what a participant does, and be run with both ways to call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import grpc
from google.rpc import status_pb2

from protos.mesh.v1 import mesh_pb2 as pb

STREAM_SERVICE = "mesh.v1.StepStream"
StreamContext = grpc.aio.ServicerContext[bytes, bytes]
Perform = Callable[[str, bytes, Any], Awaitable[bytes]]
"""(method, request, context) of a call by itself."""
Script = Callable[[AsyncIterator[bytes], StreamContext], Awaitable[None]]
Trailing = tuple[tuple[str, str | bytes], ...]

_METHODS = {pb.STEP_DIRECTION_DO: "Do", pb.STEP_DIRECTION_COMPENSATE: "Compensate"}


class _Aborted(Exception):
    pass


@dataclass
class CallContext:
    """What a call on the stream has of a `ServicerContext`."""

    call: pb.StepCall
    status: status_pb2.Status = field(default_factory=status_pb2.Status)
    rejected: bool = False

    @property
    def method(self) -> str:
        return f"{self.call.service}/{_METHODS[self.call.direction]}"

    def invocation_metadata(self) -> list[tuple[str, str]]:
        told = {
            "saga-id": self.call.saga_id,
            "saga-step": self.call.step,
            "saga-not-after": str(self.call.not_after_ms or ""),
            "traceparent": self.call.traceparent,
        }
        return [(key, value) for key, value in told.items() if value]

    def time_remaining(self) -> float:
        return self.call.timeout_ms / 1_000

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing: Trailing = ()
    ) -> NoReturn:
        values = dict(trailing)
        self.status.ParseFromString(cast("bytes", values.get("grpc-status-details-bin", b"")))
        self.status.code, self.status.message = code.value[0], details
        self.rejected = values.get("saga-outcome") == "rejected"
        raise _Aborted


class StepStream:
    """Answers each call when it is performed, in a batch of its own."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self.script: Script = self.serve
        """What it does instead."""
        self.begun = 0
        """How many streams were opened."""
        self.headers = True
        """Whether it accepts a stream in so many words."""
        self.batches: list[pb.StepBatch] = []
        """All that have arrived."""
        self.cancelled = asyncio.Event()
        """Some call is called off, or the stream is."""

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        run = grpc.stream_stream_rpc_method_handler(self._run)
        return grpc.method_handlers_generic_handler(STREAM_SERVICE, {"Run": run})

    async def _run(self, batches: AsyncIterator[bytes], context: StreamContext) -> None:
        self.begun += 1
        if self.headers:
            await context.send_initial_metadata(())
        try:
            await self.script(batches, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def serve(self, batches: AsyncIterator[bytes], context: StreamContext) -> None:
        writing = asyncio.Lock()
        async with asyncio.TaskGroup() as tasks:
            async for received in batches:
                batch = pb.StepBatch.FromString(received)
                self.batches.append(batch)
                if batch.cancelled_call_ids:
                    self.cancelled.set()
                for call in batch.calls:
                    tasks.create_task(self._answer(call, context, writing))

    async def _answer(
        self, call: pb.StepCall, context: StreamContext, writing: asyncio.Lock
    ) -> None:
        result = await self._result(call)
        async with writing:
            await context.write(pb.StepResultBatch(results=[result]).SerializeToString())

    async def _result(self, call: pb.StepCall) -> pb.StepResult:
        context = CallContext(call)
        try:
            response = await self._perform(context.method, call.request, context)
        except _Aborted:
            return pb.StepResult(
                call_id=call.call_id, status=context.status, rejected=context.rejected
            )
        return pb.StepResult(call_id=call.call_id, response=response)
