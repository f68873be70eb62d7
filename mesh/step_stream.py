"""mesh.v1.StepStream: many calls of steps on one stream, each meaning what it means by itself.

A call by itself has header fields, a status and a stream of HTTP/2 of its own; on a step stream
that price is paid for each message, however many calls are in it. So:

- **Batches.** One write is in flight at a time. What becomes ready meanwhile is the next batch:
  with little to do a batch is one answer, sent at once. Only when answers come thick does a batch
  wait for more, a moment at most (`pace.py`).
- **A bound on what is held.** A call holds its place from its beginning until its answer is
  *written*, and there are `MAX_CALLS` places and `MAX_BYTES`. When they are taken nothing is begun,
  not even the rest of a batch, and so nothing is read: HTTP/2's flow control then stops the
  client's writes. A client that does not read its answers fills the places, and is served no more.
- **No call waits for another.** Each has a task of its own, so that answers leave in the order in
  which they are ready. After each `_TURN` of a batch the event loop gets its turn: whoever else has
  a call waits for that many, not for the hundred thousand that may lie in one message.

The three tasks of a stream (read, write, drain) end together with whichever ends first. Then calls
in flight are cancelled, what is answered is still written, and the status says why it ended.
"""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry import trace
from structlog.contextvars import bind_contextvars

from mesh.border import drained, parsed, refusal
from mesh.errors import FieldViolation, InvalidRequest, MeshError, Rejected
from mesh.pace import Pace
from mesh.rpc.served import Context
from mesh.step import SAGA_ID, SAGA_STEP, GuardedStep, StepCall, StepMethod, methods_of
from mesh.telemetry import TRACER, is_sampled, mark, server_span
from protos.mesh.v1 import mesh_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["StepStream"].full_name
MAX_CALLS = 1_024
"""Calls of one stream that have begun and whose answers are not written."""
MAX_BYTES = 16 << 20
"""Bytes of their requests and answers at which no further call begins."""

_BATCH_BYTES = 2 << 20
"""Bytes of answers at which a batch is full; with the largest answer it stays under the 4 MiB that
clients take."""
_TURN = 64
_TOO_LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
_CANCELLED = (grpc.StatusCode.CANCELLED, "Cancelled")
_BROKEN = (grpc.StatusCode.UNKNOWN, "the answer could not be made; the log says more")
_DO = pb.STEP_DIRECTION_DO
_DIRECTIONS = {"Do": _DO, "Compensate": pb.STEP_DIRECTION_COMPENSATE}

ItemT = TypeVar("ItemT")
Perform = Callable[[pb.StepCall], Coroutine[Any, Any, pb.StepResult]]


class StepStream:
    """Serves `Run` for the steps that were added."""

    def __init__(self, tracer_provider: trace.TracerProvider) -> None:
        self._tracer = tracer_provider.get_tracer(TRACER)
        self._methods: dict[tuple[str, pb.StepDirection], StepMethod] = {}
        self._draining = asyncio.Event()

    def add(self, step: GuardedStep) -> None:
        """Take calls of this step."""
        for method in methods_of(step):
            self._methods[method.service.full_name, _DIRECTIONS[method.name]] = method

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The handler of `Run`, which is given the bytes of each message."""
        run = grpc.stream_stream_rpc_method_handler(self._run)
        return grpc.method_handlers_generic_handler(SERVICE, {"Run": run})

    def drain(self) -> None:
        """Refuse new calls, and end each stream when it has answered the earlier ones."""
        self._draining.set()

    async def _run(self, batches: AsyncIterator[bytes], context: Context) -> None:
        await context.send_initial_metadata(())  # the client knows at once that we have streams
        with trace.use_span(trace.INVALID_SPAN):  # no call belongs to the trace of the stream
            await _Stream(self._perform, self._draining, context).run(batches)

    async def _perform(self, call: pb.StepCall) -> pb.StepResult:
        """What the call by itself would have been answered."""
        method = self._methods.get((call.service, call.direction))
        if method is None:
            return _failed(call.call_id, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        bind_contextvars(saga_id=call.saga_id, step=call.step)
        if not is_sampled(call.traceparent):
            return await self._answer(call, method, trace.INVALID_SPAN)
        with self._span(call, method) as span:
            return await self._answer(call, method, span)

    def _span(self, call: pb.StepCall, method: StepMethod) -> AbstractContextManager[trace.Span]:
        metadata = ((SAGA_ID, call.saga_id), (SAGA_STEP, call.step))
        caller = ("traceparent", call.traceparent)
        return server_span(self._tracer, method.path, (*metadata, caller))

    async def _answer(
        self, call: pb.StepCall, method: StepMethod, span: trace.Span
    ) -> pb.StepResult:
        try:
            response = await method.perform(*self._admitted(call, method))
            result = pb.StepResult(call_id=call.call_id, response=response.SerializeToString())
        except asyncio.CancelledError:
            mark(span, grpc.StatusCode.CANCELLED)
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised becomes an answer
            return self._refused(call, method, error, span)
        mark(span, grpc.StatusCode.OK)
        return result

    def _admitted(self, call: pb.StepCall, method: StepMethod) -> tuple[StepCall, Message]:
        """What the step is given; raises what a call by itself is refused with before."""
        if self._draining.is_set():
            raise drained()
        request = parsed(method.request.FromString, call.request)
        not_after = str(call.not_after_ms) if call.not_after_ms else None
        return StepCall.of(call.saga_id, call.step, not_after), request

    def _refused(
        self, call: pb.StepCall, method: StepMethod, error: Exception, span: trace.Span
    ) -> pb.StepResult:
        if isinstance(error, MeshError) or span.is_recording():
            status = refusal(error, method.path, span)
        else:  # the trace that the answer and the log name was not worth a span until now
            with self._span(call, method) as late:
                status = refusal(error, method.path, late)
        rejected = call.direction == _DO and isinstance(error, Rejected)
        return pb.StepResult(call_id=call.call_id, status=status, rejected=rejected)


def _failed(call_id: int, code: grpc.StatusCode, words: str) -> pb.StepResult:
    """In the words that are all that such a call by itself is answered."""
    return pb.StepResult(call_id=call_id, status=Status(code=code.value[0], message=words))


async def _in_turns(items: Iterable[ItemT]) -> AsyncIterator[ItemT]:
    for number, item in enumerate(items, 1):
        yield item
        if number % _TURN == 0:
            await asyncio.sleep(0)


@dataclass(slots=True)
class _Call:
    """A call that is performed."""

    task: asyncio.Task[pb.StepResult]
    timer: asyncio.TimerHandle | None
    size: int


class _Stream:
    """One stream, from its beginning to its end."""

    def __init__(self, perform: Perform, draining: asyncio.Event, context: Context) -> None:
        self._perform = perform
        self._draining = draining
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, _Call] = {}
        self._results: deque[pb.StepResult] = deque()
        self._pace = Pace(self._loop.time())
        self._held = self._held_bytes = 0
        self._ready = asyncio.Event()
        """There is something to write, or nothing will come any more."""
        self._moved = asyncio.Event()
        """A call has ended, or a batch is written."""
        self._over = False

    async def run(self, batches: AsyncIterator[bytes]) -> None:
        """Serve until the client has sent all and heard all, the server drains, or it breaks."""
        writing = asyncio.create_task(self._write())
        others: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._read(batches)),
            asyncio.create_task(self._drain()),
        ]
        try:
            ended, _ = await asyncio.wait({writing, *others}, return_when=FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            others += [call.task for call in self._calls.values()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._over = True
            self._ready.set()
            # What is answered is still written; that fails where nobody hears it.
            await asyncio.gather(writing, return_exceptions=True)

    async def _read(self, batches: AsyncIterator[bytes]) -> None:
        async for received in batches:
            arrived = self._loop.time()
            batch = parsed(pb.StepBatch.FromString, received)
            async for call_id in _in_turns(batch.cancelled_call_ids):
                if call_id in self._calls:
                    self._calls[call_id].task.cancel()
            async for call in _in_turns(batch.calls):
                await self._until(self._has_room)
                self._begin(call, arrived)
        await self._until(lambda: not self._held)

    async def _drain(self) -> None:
        await self._draining.wait()
        await self._until(lambda: not self._calls)
        raise drained()

    async def _write(self) -> None:
        while not self._over or self._results:
            self._ready.clear()
            if not self._results:
                await self._ready.wait()
                continue
            await self._pace.gather(self._results)
            batch, size = self._next_batch()
            await self._context.write(batch.SerializeToString())
            self._held -= len(batch.results)
            self._held_bytes -= size
            self._moved.set()

    def _next_batch(self) -> tuple[pb.StepResultBatch, int]:
        batch, size = pb.StepResultBatch(), 0
        while self._results and size < _BATCH_BYTES:
            result = self._results.popleft()
            batch.results.append(result)
            size += result.ByteSize()
        return batch, size

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    def _has_room(self) -> bool:
        return self._held < MAX_CALLS and self._held_bytes < MAX_BYTES

    def _begin(self, call: pb.StepCall, arrived: float) -> None:
        call_id = call.call_id
        if call_id in self._calls:
            words = f"{call_id} is in flight; each call of a stream has an id of its own"
            raise InvalidRequest([FieldViolation("calls.call_id", words)], reason="CALL_ID_REUSED")
        self._held += 1
        deadline = arrived + call.timeout_ms / 1_000 if call.timeout_ms else None
        if deadline is not None and deadline <= self._loop.time():
            self._answered(_failed(call_id, *_TOO_LATE), 0)
            return
        own = pb.StepCall()
        own.CopyFrom(call)  # it shall not keep the memory of its batch
        task = self._loop.create_task(self._perform(own))
        timer = None if deadline is None else self._loop.call_at(deadline, task.cancel)
        size = own.ByteSize()
        self._held_bytes += size
        self._calls[call_id] = _Call(task, timer, size)
        task.add_done_callback(partial(self._ended, call_id))

    def _ended(self, call_id: int, task: asyncio.Task[pb.StepResult]) -> None:
        call = self._calls.pop(call_id)
        late = call.timer is not None and call.timer.when() <= self._loop.time()
        if call.timer is not None:
            call.timer.cancel()
        result = _failed(call_id, *_BROKEN)
        try:
            if task.cancelled():
                result = _failed(call_id, *(_TOO_LATE if late else _CANCELLED))
            else:
                result = task.result()
        finally:  # what is raised is a bug and goes to the loop's log; the call gets an answer
            self._answered(result, call.size)
            self._moved.set()

    def _answered(self, result: pb.StepResult, released: int) -> None:
        self._results.append(result)
        self._held_bytes += result.ByteSize() - released
        self._ready.set()
