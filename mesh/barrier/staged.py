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
from collections.abc import Mapping
from typing import ClassVar, Generic

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.clock import Clock, wall_clock_ms
from mesh.errors import NotNow
from mesh.step import GuardedStep, RequestT, ResponseT, StepCall, StepTypes

Note = Mapping[str, str | int]
"""How far the stages are: a few ids and counters, stored as JSON. Never a secret or a token."""


class Superseded(NotNow):
    """A Compensate came first: this Do has to clean up after itself and stop."""


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
    async def advance(self, note: Note) -> None:
        """Commit a new note in place of the old one.

        Raises:
            Superseded: `do` was overtaken by a Compensate; clean up and let this pass.
            Conflict: `STEP_BUSY`, another attempt is ahead. Do not clean up: what this attempt
                did under the provider's idempotency key is what the other one goes on with.
            NotNow: `STEP_EXPIRED`, in `do`; noted nevertheless, so that Compensate knows.
        """

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
    """Guards steps whose progress is noted in the database of `engine` (see `mesh.postgres`)."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock = wall_clock_ms) -> None:
        self._engine = engine
        self._clock = clock

    def guard(self, step: StagedStep[RequestT, ResponseT]) -> GuardedStep:
        """The step behind this barrier, ready for `Server.add_step`."""
        return _GuardedStagedStep(step, self._engine, self._clock)


class _GuardedStagedStep(Generic[RequestT, ResponseT]):
    def __init__(
        self, step: StagedStep[RequestT, ResponseT], engine: AsyncEngine, clock: Clock
    ) -> None:
        self.types = StepTypes.of(step.service)
        self._step = step
        self._engine = engine
        self._clock = clock

    async def do(self, call: StepCall, request: Message) -> Message:
        raise NotImplementedError

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        raise NotImplementedError
