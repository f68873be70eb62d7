"""One step stream to a participant: many calls, each heard once.

A call waits in the outbox until the batch before it is written: what comes together, or while a
batch is being written, travels together; a batch waits for more only when calls come thick. From
then on it is in flight until its answer comes, its time is up, or the stream ends; whichever is
first takes it out, so none is answered twice. The answers of one batch are told together
(`mesh/telling.py`).

    outbox ── batch written ──> in flight ── result ─────────────> answered
      │                            ├──────── time is up ─────────> UNKNOWN, DEADLINE_EXCEEDED
      └─ stream ends: handed back  └──────── stream ends ────────> UNKNOWN, UNAVAILABLE

What was handed back was never sent, so it may go another way without being a second attempt. A
stream that is retired takes no further call and ends when nothing is in flight. It retires itself
when a call's time is up and nothing at all was heard since the call was made: whatever holds it up,
a participant that does not read or a connection that is dead, may not hold up the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from msgspec import Struct
from msgspec.structs import replace
from opentelemetry.trace import Span, Tracer

from coordinator.core.model import Direction
from coordinator.participants import answers
from coordinator.participants.base import Answer, Attempt
from coordinator.participants.spans import start_span, traceparent_of
from mesh.errors import refusal_of
from mesh.pace import Pace
from mesh.rpc.channel import Channel
from mesh.rpc.deadlines import Deadlines
from mesh.rpc.headers import Ending
from mesh.telling import tell_all
from protos.mesh.v1 import mesh_pb2 as pb

MAX_BATCH_CALLS = 1_000
MAX_BATCH_BYTES = 1 << 20
"""A batch that has grown to this takes no further call. So it stays below 4 MiB, the limit of a
request, as long as no call is larger than this, too."""

Answered: TypeAlias = Callable[[Answer], None]
Unsent: TypeAlias = Callable[[Attempt, Answered], None]

SERVICE = "mesh.v1.StepStream"
METHOD = f"/{SERVICE}/Run"

_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED
_NOT_READABLE = Ending(grpc.StatusCode.INTERNAL, "the stream is not readable")
_HEADERS_SECONDS = 1.0
"""How long a participant may refuse the stream. One that serves it says so at once, if it is
written with our kit; others perhaps say nothing before their first answer."""
_DIRECTIONS = {
    Direction.DO: pb.STEP_DIRECTION_DO,
    Direction.COMPENSATE: pb.STEP_DIRECTION_COMPENSATE,
}

log = structlog.get_logger(__name__)


class _Call(Struct, frozen=True, eq=False):
    attempt: Attempt
    answered: Answered
    span: Span


class _Unreadable(Exception):
    """A participant sends what cannot be; says what."""


class Stream:
    """A stream that is opened at once. Made inside the event loop."""

    def __init__(
        self, channel: Channel, tracer: Tracer, *, participant: str, unsent: Unsent
    ) -> None:
        """`unsent` is given what was never sent, with the time that it has left."""
        self._tracer = tracer
        self._participant = participant
        self._unsent = unsent
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._expired)
        self._pace = Pace(self._loop.time())
        self._outbox: dict[int, _Call] = {}
        self._in_flight: dict[int, _Call] = {}
        self._cancelled: list[int] = []
        self._writing = False
        self._last_id = self._written_id = self._heard_id = 0
        self._accepted = False
        self.closed = asyncio.Event()
        """Set when it takes no further call."""
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when every call is answered and none will be taken."""
        self.code: grpc.StatusCode | None = None
        """Which its participant has ended it with; None while it has not."""
        self._patience: asyncio.TimerHandle | None = None
        self._run = channel.stream(METHOD, self)

    @property
    def open(self) -> bool:
        """Whether it takes calls: its participant has accepted it, and it is not closed."""
        return self._accepted and not self.closed.is_set()

    def call(self, attempt: Attempt, answered: Answered) -> None:
        """Send an attempt; only while `open`."""
        self._last_id += 1
        self._outbox[self._last_id] = _Call(attempt, answered, start_span(self._tracer, attempt))
        self._deadlines.add(self._last_id, attempt.timeout_ms)
        if not self._writing:
            self._write_soon()

    def retire(self) -> None:
        """Take no further call, and end when nothing is in flight."""
        self.closed.set()
        self._hand_back()
        self._rest()

    def give_up(self) -> None:
        """End it now; calls without an answer hear that this coordinator is stopping."""
        self._end(answers.stopping)

    def _rest(self) -> None:
        if self.closed.is_set() and not self._in_flight:
            self._end(answers.stopping)

    def _end(self, answer: Callable[[Span], Answer]) -> None:
        """Answer what nobody will answer any more, and be over."""
        self.closed.set()
        self._wait_no_more()
        self._deadlines.clear()
        left = (*self._in_flight.values(), *self._outbox.values())
        tell_all(self._loop, [(call.answered, answer(call.span)) for call in left])
        self._in_flight.clear()
        self._outbox.clear()
        if not self.over.done():
            self._run.give_up()
            self.over.set_result(None)

    # --- what is heard --------------------------------------------------------

    def begun(self) -> None:
        """It is on its way to the participant."""
        self._wait_no_more()
        self._patience = self._loop.call_later(_HEADERS_SECONDS, self.accepted)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def accepted(self) -> None:
        """The participant serves it, or has not refused it for so long that it does."""
        self._accepted = True

    def heard(self, message: bytes) -> None:
        """A batch of results."""
        try:
            self._hear(pb.StepResultBatch.FromString(message))
        except (DecodeError, _Unreadable) as error:
            log.warning("stream.unreadable", participant=self._participant, why=str(error))
            self.ended(_NOT_READABLE)
        except Exception:
            log.exception("stream.bug", participant=self._participant)
            self._end(answers.broken)

    def ended(self, ending: Ending) -> None:
        """The participant, or what is between us, has ended it: what is in flight is unknown."""
        self.code = ending.code
        self.closed.set()
        if self._accepted:
            code, unknown = ending.code.name, len(self._in_flight)
            log.info("stream.broken", participant=self._participant, code=code, unknown=unknown)
        words = ending.message or "the participant has ended the stream"
        self._hand_back()
        self._end(partial(answers.unknown, _UNAVAILABLE, _UNAVAILABLE.name, words))

    def _hear(self, batch: pb.StepResultBatch) -> None:
        self._heard_id = self._written_id
        heard: list[tuple[Answered, Answer]] = []
        tell_all(self._loop, heard)  # also what was heard before one that cannot be
        for result in batch.results:
            call_id = result.call_id
            call = self._in_flight.get(call_id)
            if call is not None:
                answer = _answer(call, result)  # if that fails it is in flight
                heard.append((call.answered, answer))
                del self._in_flight[call_id]
                self._deadlines.discard(call_id, call.attempt.timeout_ms)
            elif not 0 < call_id <= self._written_id:
                raise _Unreadable(f"it answers call {call_id}, which was not made")
        self._rest()

    # --- what is written ------------------------------------------------------

    def _write_soon(self) -> None:
        """After this turn, which may bring more."""
        self._writing = True
        self._loop.call_soon(self._write_if_worth_it)

    def _write_if_worth_it(self) -> None:
        """Now, or a moment later if more is worth waiting for."""
        if pause := self._pace.wait(len(self._outbox)):
            self._loop.call_later(pause, self._write)
        else:
            self._write()

    def _write(self) -> None:
        if self.over.done():
            return
        self._pace.sent(len(self._outbox), self._loop.time())
        self._run.write(self._next_batch(), self._written)

    def _written(self) -> None:
        self._writing = False
        if self._outbox or self._cancelled:
            self._write_soon()

    def _next_batch(self) -> bytes:
        batch, size = pb.StepBatch(cancelled_call_ids=self._cancelled), 0
        self._cancelled.clear()
        for call_id, call in list(islice(self._outbox.items(), MAX_BATCH_CALLS)):
            if size >= MAX_BATCH_BYTES:
                break
            self._in_flight[call_id] = self._outbox.pop(call_id)
            self._written_id = call_id
            size += len(call.attempt.request)
            _fill(batch.calls.add(), call_id, call)
        return batch.SerializeToString()

    def _expired(self, call_id: int) -> None:
        """The time of a call is up; the participant is told, if it has heard of it."""
        call = self._outbox.pop(call_id, None)
        if call is None:
            call = self._in_flight.pop(call_id)
            self._cancelled.append(call_id)
            if not self._writing:
                self._write_soon()
        late = answers.unknown(_LATE, _LATE.name, "Deadline Exceeded", call.span)
        self._loop.call_soon(call.answered, late)
        if call_id > self._heard_id:
            self.retire()
        else:
            self._rest()

    def _hand_back(self) -> None:
        """Give away what was not sent; its span is never ended, for the other way has its own."""
        while self._outbox:
            call_id = next(iter(self._outbox))
            call = self._outbox.pop(call_id)
            left_ms = self._deadlines.left_ms(call_id, call.attempt.timeout_ms)
            self._deadlines.discard(call_id, call.attempt.timeout_ms)
            self._unsent(replace(call.attempt, timeout_ms=left_ms), call.answered)


def _fill(message: pb.StepCall, call_id: int, call: _Call) -> None:
    """One field after the other: that costs half of what keyword arguments do."""
    attempt = call.attempt
    message.call_id = call_id
    message.service = attempt.service
    message.direction = _DIRECTIONS[attempt.direction]
    message.saga_id = attempt.saga_id
    message.step = attempt.step
    message.request = attempt.request
    message.timeout_ms = attempt.timeout_ms
    message.not_after_ms = attempt.not_after_ms or 0
    message.traceparent = traceparent_of(call.span, attempt)


def _answer(call: _Call, result: pb.StepResult) -> Answer:
    status = result.status
    if not status.code:
        return answers.done(result.response, call.span)
    return answers.refused(call.attempt, refusal_of(status), call.span, proven=result.rejected)
