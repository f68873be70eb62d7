"""StartSagas: many sagas over one stream, and what becomes of each.

A saga by itself is a call of its own, with header fields, a task and a status. Here that price is
paid for a message, however many sagas or reports are in it.

- **No task for a saga.** What the client sends is begun as it is read; the engine calls back when a
  start is on disk, or a saga has ended. One task reads, another writes.
- **Messages.** One write is in flight at a time, and what becomes ready meanwhile is the next
  message: a single report with little to do, hundreds under load (`mesh/pace.py`).
- **A bound on what is held.** From being read until its start is told, a saga holds a place of its
  stream, and one more for each 4 KiB of its input; when they are taken nothing is begun, and so
  nothing is read: HTTP/2's flow control stops the client. One that does not read its reports starts
  no more sagas. Who waits for an end holds only a few hundred bytes: that may take days, and others
  shall be started meanwhile. So there are far more places for ends.
- **Held back, not refused.** All streams together have no more starts on their way to the disk than
  the engine takes (`admission.py`); what one client sends too fast waits in its own connection.
- **Others have their turn** after each `_TURN` sagas of a message.

A stream whose client has sent all ends with OK when all is told. One that cannot go on, because of
what the client sent or because this instance drains, first tells of the starts that it has begun;
ends are not told any more. Whatever becomes of the stream, its sagas go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple, TypeAlias

from google.rpc import status_pb2
from opentelemetry import trace

from coordinator.api import validate
from coordinator.api.convert import SAGA_STATES
from coordinator.api.ports import Sagas
from coordinator.api.refusals import in_words
from coordinator.api.start import Starts
from coordinator.api.stored import LoadedSaga
from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from mesh.border import drained, refusal
from mesh.errors import InvalidRequest
from mesh.pace import Pace
from mesh.rpc.method import StreamOver
from mesh.validation import refuse_if_any
from protos.saga.v1 import saga_pb2 as pb

Requests: TypeAlias = AsyncIterator[pb.StartSagasRequest]
Write: TypeAlias = Callable[[pb.StartSagasResponse], Awaitable[None]]

PLACES = 4_096
"""Of one stream, for sagas whose starts it has not been told."""
ENDS = 100_000
"""Of one stream, for sagas whose ends are awaited."""
UNDER_WAY = 1_500
"""Of all streams together, for sagas that wait for the disk; the engine takes 2,000."""

_PLACE_BYTES = 4_096
_MAX_REPORTS = 500
"""In one message: were all refusals, as long as can be, it would still be under 4 MiB."""
_TURN = 64
_METHOD = "/saga.v1.SagaService/StartSagas"


class _Room:
    """So many at a time, or a few more: who finds that there is room takes what it needs."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._freed = asyncio.Event()
        self.taken = 0

    def give_back(self, places: int = 1) -> None:
        self.taken -= places
        self._freed.set()

    async def is_there(self) -> None:
        while self.taken >= self._size:
            self._freed.clear()
            await self._freed.wait()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all streams have together."""

    starts: Starts
    sagas: Sagas
    under_way: _Room


class StartStreams:
    """Serves StartSagas."""

    def __init__(self, starts: Starts, sagas: Sagas) -> None:
        self._shared = _Shared(starts, sagas, _Room(UNDER_WAY))
        self._open: set[_Stream] = set()
        self._draining = False

    def drain(self) -> None:
        """Read nothing more; each stream ends once it has told which sagas are on disk."""
        self._draining = True
        for stream in self._open:
            stream.drain()

    async def serve(self, requests: Requests, write: Write, traceparent: str) -> None:
        """Serve one client to the end; `requests` raises what is wrong with a message.

        Raises:
            InvalidRequest: a message of the client's cannot be read, or has too many sagas.
            Retry: DRAINING.
        """
        if self._draining:
            raise drained()
        stream = _Stream(self._shared, requests, write, traceparent)
        self._open.add(stream)
        try:
            await stream.run()
        finally:
            self._open.discard(stream)


class _Report(NamedTuple):
    saga_id: str
    state: pb.SagaState = pb.SAGA_STATE_UNSPECIFIED
    refusal: status_pb2.Status | None = None
    places: int = 0
    """That its saga held until now."""


class _Stream:
    """One client."""

    def __init__(self, shared: _Shared, requests: Requests, write: Write, traceparent: str) -> None:
        self._shared = shared
        self._write = write
        self._traceparent = traceparent
        self._pace = Pace(asyncio.get_running_loop().time())
        self._untold = _Room(PLACES)
        self._awaited = _Room(ENDS)
        self._calls_off: dict[int, Callable[[], None]] = {}
        """For each end that is awaited, by its number."""
        self._numbers = count()
        self._reports: list[_Report] = []
        self._news = asyncio.Event()
        """There is something to tell, or nothing more is read."""
        self._why: BaseException | None = None
        """What keeps the stream from going on."""
        self._over = False
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(self._read_all)

    async def run(self) -> None:
        try:
            while not self._all_told():
                await self._news.wait()
                self._news.clear()
                await self._tell()
        except StreamOver:
            return  # the client has gone
        finally:
            self._over = True
            self._reading.cancel()
            for call_off in self._calls_off.values():
                call_off()
        if self._why is not None:
            raise self._why

    def drain(self) -> None:
        self._why = self._why or drained()
        self._reading.cancel()
        self._news.set()

    def _all_told(self) -> bool:
        if self._untold.taken or self._reports or not self._reading.done():
            return False
        return not self._awaited.taken or self._why is not None

    # --- starts ---------------------------------------------------------------

    async def _read(self, requests: Requests) -> None:
        rooms = (self._untold, self._awaited, self._shared.under_way)
        async for request in requests:
            refuse_if_any(validate.start_many_violations(request))
            for number, saga in enumerate(request.sagas):
                if number % _TURN == 0:
                    await asyncio.sleep(0)
                    for room in rooms:
                        await room.is_there()
                self._start(saga)

    def _read_all(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled():
            self._why = self._why or reading.exception()
        self._news.set()

    def _start(self, request: pb.StartSagaRequest) -> None:
        places = 1 + len(request.input.value) // _PLACE_BYTES
        self._untold.taken += places
        self._awaited.taken += request.wait
        self._shared.under_way.taken += 1
        begun = partial(self._begun, request.saga_id, places, wait=request.wait)
        if violations := list(validate.start_one_of_many_violations(request)):
            begun(InvalidRequest(violations))
        else:
            self._shared.starts.begin(request, self._traceparent, begun)

    def _begun(
        self, saga_id: str, places: int, outcome: LoadedSaga | Exception, *, wait: bool
    ) -> None:
        self._shared.under_way.give_back()
        if self._over:
            return
        if isinstance(outcome, Exception):
            why = refusal(in_words(outcome), _METHOD, trace.INVALID_SPAN)
            self._report(_Report(saga_id, refusal=why, places=places))
            going_on = False
        else:
            state = outcome.saga.state
            self._report(_Report(saga_id, SAGA_STATES[state], places=places))
            going_on = not state.ended
        if wait and going_on:
            self._await_end(next(self._numbers), saga_id)
        elif wait:
            self._awaited.give_back()

    # --- ends -----------------------------------------------------------------

    def _await_end(self, number: int, saga_id: str) -> None:
        ended = partial(self._ended, number, saga_id)
        self._calls_off[number] = self._shared.sagas.when_ended(saga_id, ended)

    def _ended(self, number: int, saga_id: str, end: Saga | SagaState) -> None:
        del self._calls_off[number]
        self._awaited.give_back()
        state = end.state if isinstance(end, Saga) else end
        self._report(_Report(saga_id, SAGA_STATES[state]))

    # --- reports --------------------------------------------------------------

    def _report(self, report: _Report) -> None:
        self._reports.append(report)
        self._news.set()

    async def _tell(self) -> None:
        while self._reports:
            await self._pace.gather(self._reports)
            told, self._reports = self._reports[:_MAX_REPORTS], self._reports[_MAX_REPORTS:]
            await self._write(_response(told))
            self._untold.give_back(sum(report.places for report in told))


def _response(reports: Sequence[_Report]) -> pb.StartSagasResponse:
    response = pb.StartSagasResponse()
    for saga_id, state, why, _ in reports:
        response.reports.add(saga_id=saga_id, state=state, refusal=why)
    return response
