"""The barrier for an effect outside any database, such as a charge at a payment provider.

No transaction spans the provider and PostgreSQL, so the step runs in stages. Its row is committed
as DOING before anything happens; between two calls to the provider the step notes how far it is
with `record.advance(note)`, one compare-and-swap in a transaction of its own. Any later attempt, in
any process, resumes from the note. A call to the provider is never made inside a transaction, and
carries an idempotency key derived from `call.key`, so that two attempts at once are harmless.

    class ChargePayment(StagedStep[ChargePaymentRequest, ChargePaymentResponse]):
        service = "payment.v1.ChargePayment"

        async def do(self, call, request, record):
            if "intent" not in record.note:
                intent = await provider.create(..., idempotency_key=call.key)
                try:
                    await record.advance({"intent": intent.id})
                except Superseded:
                    await provider.cancel(intent.id)      # Compensate came first: clean up
                    raise
            record.refuse_expired()                       # again before each effect
            ...
            return ChargePaymentResponse(...)

        async def compensate(self, call, request, record):
            ...                                           # undo what record.note tells

`do` raises `Rejected` only after it made sure that nothing can happen any more. `compensate` is
called after the row reads COMPENSATING, from which moment `advance` of a Do fails; it is called
also when no response is known, and again after a crash, until it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Generic

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier import rows, rules
from mesh.barrier.along import Along
from mesh.barrier.rows import Note, Outcome, Row
from mesh.barrier.rules import BarrierState, Superseded
from mesh.clock import Clock, wall_clock_ms
from mesh.errors import MeshError, Rejected
from mesh.postgres import session, transaction
from mesh.step import GuardedStep, RequestT, ResponseT, StepCall, StepTypes

__all__ = ["Note", "StageRecord", "StagedBarrier", "StagedStep", "Superseded"]


class StageRecord(ABC):
    """What the barrier has stored of this step, and the way to store more."""

    @property
    @abstractmethod
    def note(self) -> Note:
        """The newest note; empty at first."""

    @property
    @abstractmethod
    def response(self) -> Message | None:
        """What Do answered; None when it has not, or not yet."""

    @abstractmethod
    async def advance(self, note: Note, along: Along | None = None) -> None:
        """Commit a new note in place of the old one, and with it what goes along.

        Raises:
            Superseded: `do` was overtaken by a Compensate; clean up and let this pass.
            Conflict: `STEP_BUSY`, another attempt is ahead. Do not clean up: what this attempt
                did under the provider's idempotency key is what the other one goes on with.
            NotNow: `STEP_EXPIRED`, in `do`; noted nevertheless, so that Compensate knows.
        """

    @abstractmethod
    def with_response(self, along: Along) -> None:
        """Commit this with the response that `do` returns; if none is stored, neither is this."""

    @abstractmethod
    def refuse_expired(self) -> None:
        """Raises NotNow `STEP_EXPIRED`; to be called before each effect in `do`."""


class StagedStep(ABC, Generic[RequestT, ResponseT]):
    """A pair of Do and Compensate whose effect is outside any database."""

    service: ClassVar[str]
    """Full name of the step service, such as payment.v1.ChargePayment."""

    @abstractmethod
    async def do(self, call: StepCall, request: RequestT, record: StageRecord) -> ResponseT:
        """Make the effect, resuming from `record.note`, and return the response.

        Raises:
            Rejected: for good; the step made sure that nothing can happen any more.
        """

    @abstractmethod
    async def compensate(self, call: StepCall, request: RequestT, record: StageRecord) -> None:
        """Undo whatever `record.note` says may have happened; returns once nothing is left."""


class StagedBarrier:
    """Guards steps whose progress is noted in the database of `engine`, made by `mesh.postgres`."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock = wall_clock_ms) -> None:
        self._engine = engine
        self._clock = clock

    def guard(self, step: StagedStep[RequestT, ResponseT]) -> GuardedStep:
        """The step behind this barrier, ready for `Server.add_step`."""
        return _GuardedStagedStep(step, self._engine, self._clock)


class _GuardedStagedStep:
    def __init__(self, step: StagedStep[Any, Any], engine: AsyncEngine, clock: Clock) -> None:
        self.types = StepTypes.of(step.service)
        self._step = step
        self._engine = engine
        self._clock = clock

    async def do(self, call: StepCall, request: Message) -> Message:
        rules.refuse_expired(call, self._clock())
        rules.refuse_large_request(request)
        row = await self._begin(call, request)
        outcome = row.outcome(call, request, self.types)
        if outcome is None:
            outcome = await self._run(call, request, row)
        return rules.answer(outcome)

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        row = await self._begin_undoing(call, compensation)
        if row.state is BarrierState.COMPENSATING:
            record = self._record(call, row)
            await self._step.compensate(call, row.parsed_request(self.types), record)
            async with session(self._engine) as db:  # a twin may have been faster
                await rows.move(db, call, BarrierState.COMPENSATING, BarrierState.COMPENSATED)
        return self.types.compensated()

    async def _begin(self, call: StepCall, request: Message) -> Row:
        async with session(self._engine) as db:
            if await rows.insert_doing(db, call, self._step.service, request):
                return rows.begun(self._step.service, request)
            return await rows.read(db, call)

    async def _run(self, call: StepCall, request: Message, row: Row) -> Outcome:
        record = self._record(call, row)
        try:
            response = await self._step.do(call, request, record)
        except Rejected as rejection:
            frozen = rules.freeze(rejection, self.types)
            settled = await self._settle(call, request, BarrierState.REJECTED, rejection=frozen)
            return rules.thaw(frozen) if settled is None else settled
        stored = rules.canonical(rules.check_response(self.types, response))
        settled = await self._settle(
            call, request, BarrierState.DONE, record.along, response=stored
        )
        return response if settled is None else settled

    async def _settle(
        self,
        call: StepCall,
        request: Message,
        state: BarrierState,
        along: Along | None = None,
        **outcome: bytes,
    ) -> Outcome | None:
        """Store the outcome: None; or what a twin or a Compensate has stored before."""
        async with session(self._engine) as db:
            if await rows.move(db, call, BarrierState.DOING, state, along=along, **outcome):
                return None
            settled = (await rows.read(db, call)).outcome(call, request, self.types)
        if settled is None:
            raise rules.busy(call)
        return settled

    async def _begin_undoing(self, call: StepCall, compensation: Message) -> Row:
        """The row in COMPENSATING when there is something to undo, else in COMPENSATED."""
        async with transaction(self._engine) as tx:
            first = await rows.insert_tombstone(tx, call, self._step.service)
            if first and compensation.HasField("response"):
                raise rules.record_missing(call)
            row = await rows.lock(tx, call)
            row.refuse_other_service(call, self.types)
            target = _UNDOING[row.state]
            if target is not row.state:
                await rows.move(tx, call, row.state, target)
        return replace(row, state=target)

    def _record(self, call: StepCall, row: Row) -> _StoredRecord:
        return _StoredRecord(self._engine, self._clock, self.types, call, row)


_UNDOING = {
    BarrierState.DOING: BarrierState.COMPENSATING,
    BarrierState.DONE: BarrierState.COMPENSATING,
    BarrierState.COMPENSATING: BarrierState.COMPENSATING,
    BarrierState.REJECTED: BarrierState.COMPENSATED,
    BarrierState.COMPENSATED: BarrierState.COMPENSATED,
}
"""What a Compensate makes of each state before it undoes anything."""


class _StoredRecord(StageRecord):
    def __init__(
        self, engine: AsyncEngine, clock: Clock, types: StepTypes, call: StepCall, row: Row
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._call = call
        self._row = row
        self._response = row.parsed_response(types)
        self.along: Along | None = None
        """What is to be stored with the response."""

    @property
    def note(self) -> Note:
        return self._row.note

    @property
    def response(self) -> Message | None:
        return self._response

    async def advance(self, note: Note, along: Along | None = None) -> None:
        here = self._row
        async with session(self._engine) as db:
            moved = await rows.note(db, self._call, here, note, along)
            found = here if moved else await rows.read(db, self._call)
        if not moved:
            raise _overtaken(self._call, here.state, found.state)
        self._row = replace(here, note=note, stage=here.stage + 1)
        if here.state is BarrierState.DOING:
            self.refuse_expired()

    def with_response(self, along: Along) -> None:
        self.along = along

    def refuse_expired(self) -> None:
        rules.refuse_expired(self._call, self._clock())


def _overtaken(call: StepCall, mine: BarrierState, found: BarrierState) -> MeshError:
    undone = found in (BarrierState.COMPENSATING, BarrierState.COMPENSATED)
    if mine is BarrierState.DOING and undone:
        return rules.already_compensated(call)
    return rules.busy(call)
