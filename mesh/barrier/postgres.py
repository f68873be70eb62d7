"""The barrier for effects in PostgreSQL: the row and the effect commit together, or not at all.

Do inserts its row first. A parallel duplicate waits there on the unique key until this transaction
ends, and then finds either the outcome or nothing. A rejection rolls all of it back, row and
writes, and is then stored by the same insert in a transaction of its own: if a twin or a Compensate
came in between, that one has decided, and is answered. So the common case pays for no savepoint.
Nothing is answered before COMMIT; a COMMIT without an answer is UNAVAILABLE, never a rejection.
Compensate inserts the same row as a tombstone, so that whichever comes first decides.

A step whose effect is one statement is first tried by that statement alone (`at_once.py`); what is
said here is the way of all others, and of what that could not do.

No other session ever sees a row in DOING: a crash anywhere before COMMIT leaves no trace.

Handlers must neither commit nor roll back the transaction they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier import rows, rules
from mesh.barrier.at_once import AtOnceStep, make_and_record
from mesh.barrier.rows import Outcome, Row
from mesh.barrier.rules import BarrierState
from mesh.clock import Clock, wall_clock_ms
from mesh.errors import Rejected
from mesh.postgres import session, transaction
from mesh.step import GuardedStep, RequestT, ResponseT, Step, StepCall, StepTypes


class PostgresBarrier:
    """Guards steps whose effects are in the database of `engine`, made by `mesh.postgres`."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock = wall_clock_ms) -> None:
        self._engine = engine
        self._clock = clock

    def guard(self, step: Step[RequestT, ResponseT, AsyncConnection]) -> GuardedStep:
        """The step behind this barrier, ready for `Server.add_step`."""
        return _PostgresStep(step, self._engine, self._clock)


class _PostgresStep:
    def __init__(
        self, step: Step[Any, Any, AsyncConnection], engine: AsyncEngine, clock: Clock
    ) -> None:
        self.types = StepTypes.of(step.service)
        self._step = step
        self._engine = engine
        self._clock = clock

    async def do(self, call: StepCall, request: Message) -> Message:
        rules.refuse_expired(call, self._clock())
        rules.refuse_large_request(request)
        try:
            response = await self._at_once(call, request)
            if response is not None:
                return response
            outcome = await self._at_length(call, request)
        except Rejected as rejection:
            outcome = await self._reject(call, request, rejection)
        return rules.answer(outcome)

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        async with transaction(self._engine) as tx:
            if not await rows.insert_tombstone(tx, call, self._step.service):
                await self._undo(call, await rows.lock(tx, call), tx)
            elif compensation.HasField("response"):
                raise rules.record_missing(call)
        return self.types.compensated()

    async def _at_once(self, call: StepCall, request: Message) -> Message | None:
        """The response of a step that is done by one statement; None where it takes more."""
        if not isinstance(self._step, AtOnceStep):
            return None
        wanted = self._step.at_once(call, request)
        stored = rules.canonical(rules.check_response(self.types, wanted.response))
        async with session(self._engine) as db:
            rules.refuse_expired(call, self._clock())  # it may have waited for the session
            done = await make_and_record(db, wanted.effect, self._key(call), request, stored)
        return wanted.response if done else None

    def _key(self, call: StepCall) -> Mapping[str, str]:
        return {"saga_id": call.saga_id, "step": call.step, "service": self._step.service}

    async def _at_length(self, call: StepCall, request: Message) -> Outcome:
        async with transaction(self._engine) as tx:
            return await self._outcome(call, request, tx)

    async def _outcome(self, call: StepCall, request: Message, tx: AsyncConnection) -> Outcome:
        if not await rows.insert_doing(tx, call, self._step.service, request):
            return await self._replay(call, request, tx)
        rules.refuse_expired(call, self._clock())  # the insert may have waited
        response: Message = await self._step.do(call, request, tx)
        stored = rules.canonical(rules.check_response(self.types, response))
        await rows.finish(tx, call, stored)
        return response

    async def _reject(self, call: StepCall, request: Message, rejection: Rejected) -> Outcome:
        """Store the rejection, now that its writes are taken back; or answer what came between."""
        stored = rules.freeze(rejection, self.types)
        async with transaction(self._engine) as tx:
            if await rows.insert_rejected(tx, call, self._step.service, request, stored):
                return rules.thaw(stored)
            return await self._replay(call, request, tx)

    async def _replay(self, call: StepCall, request: Message, tx: AsyncConnection) -> Outcome:
        outcome = (await rows.read(tx, call)).outcome(call, request, self.types)
        if outcome is None:
            raise rules.busy(call)
        return outcome

    async def _undo(self, call: StepCall, row: Row, tx: AsyncConnection) -> None:
        row.refuse_other_service(call, self.types)
        match row.state:
            case BarrierState.DONE:
                request, response = row.parsed_request(self.types), row.parsed_response(self.types)
                await self._step.compensate(call, request, response, tx)
                await rows.move(tx, call, row.state, BarrierState.COMPENSATED)
            case BarrierState.REJECTED:
                await rows.move(tx, call, row.state, BarrierState.COMPENSATED)
            case BarrierState.COMPENSATED:
                pass
            case BarrierState.DOING | BarrierState.COMPENSATING:
                raise rules.busy(call)  # never committed here: the handler broke its transaction
            case _:
                assert_never(row.state)
