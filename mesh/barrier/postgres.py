"""The barrier for effects in PostgreSQL: the row and the effect commit together, or not at all.

Do inserts its row first. A parallel duplicate waits there on the unique key until this transaction
ends, and then finds either the outcome or nothing. The handler runs under a savepoint, so that a
rejection takes its writes back but keeps the row, which then stores the rejection. Nothing is
answered before COMMIT; a COMMIT without an answer is UNAVAILABLE, never a rejection. Compensate
inserts the same row as a tombstone, so that whichever comes first decides.

No other session ever sees a row in DOING: a crash anywhere before COMMIT leaves no trace.
"""

from __future__ import annotations

from typing import Generic

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.clock import Clock, wall_clock_ms
from mesh.step import GuardedStep, RequestT, ResponseT, Step, StepCall, StepTypes


class PostgresBarrier:
    """Guards steps whose effects are in the database of `engine` (see `mesh.postgres`)."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock = wall_clock_ms) -> None:
        self._engine = engine
        self._clock = clock

    def guard(self, step: Step[RequestT, ResponseT, AsyncConnection]) -> GuardedStep:
        """The step behind this barrier, ready for `Server.add_step`."""
        return _PostgresStep(step, self._engine, self._clock)


class _PostgresStep(Generic[RequestT, ResponseT]):
    def __init__(
        self, step: Step[RequestT, ResponseT, AsyncConnection], engine: AsyncEngine, clock: Clock
    ) -> None:
        self.types = StepTypes.of(step.service)
        self._step = step
        self._engine = engine
        self._clock = clock

    async def do(self, call: StepCall, request: Message) -> Message:
        raise NotImplementedError

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        raise NotImplementedError
