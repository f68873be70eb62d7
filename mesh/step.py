"""How a participant writes a step: one class with `do` and `compensate`.

    class CreateOrder(Step[CreateOrderRequest, CreateOrderResponse, AsyncConnection]):
        service = "order.v1.CreateOrder"

        async def do(self, call, request, tx):
            await tx.execute(...)                  # the effect, in the barrier's transaction
            return CreateOrderResponse(...)

        async def compensate(self, call, request, response, tx):
            await tx.execute(...)                  # undo what `do` did

    server.add_step(PostgresBarrier(engine).guard(CreateOrder()))

`do` either returns its response, or raises `Rejected` (for good; stored and proved to the
coordinator), or raises anything else (unknown: rolled back and asked again). `compensate` is called
only after a `do` that succeeded, with that request and that response, from the participant's own
record; it must not raise `Rejected`. Neither is ever run twice with effect for one saga and step.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from mesh.errors import FieldViolation, InvalidRequest

SAGA_ID = "saga-id"
SAGA_STEP = "saga-step"
SAGA_NOT_AFTER = "saga-not-after"
SAGA_OUTCOME = "saga-outcome"

SAGA_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SAGA_STEP_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,47}")
_MILLISECONDS_PATTERN = re.compile(r"[0-9]{1,15}")

MAX_MESSAGE_BYTES = 1 << 20
"""Limit of a step's request and of its response, checked before anything is committed."""

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
TxT = TypeVar("TxT")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """What belongs to the saga in a call: the idempotency key and its expiry."""

    saga_id: str
    step: str
    not_after_ms: int | None = None
    """Milliseconds since the epoch past which a Do is refused; None for never."""

    @classmethod
    def from_metadata(cls, metadata: Iterable[tuple[str, str | bytes]]) -> StepCall:
        """Read the call's metadata.

        Raises:
            InvalidRequest: a key is missing or malformed; says how to set it with grpcurl.
        """
        values = {key: value for key, value in metadata if isinstance(value, str)}
        return cls.of(
            values.get(SAGA_ID, ""), values.get(SAGA_STEP, ""), values.get(SAGA_NOT_AFTER)
        )

    @classmethod
    def of(cls, saga_id: str, step: str, not_after: str | None) -> StepCall:
        """Check what a call says of its saga.

        Raises:
            InvalidRequest: see `from_metadata`.
        """
        violations = [
            FieldViolation(key, _how_to_set(key, pattern))
            for key, value, pattern in (
                (SAGA_ID, saga_id, SAGA_ID_PATTERN),
                (SAGA_STEP, step, SAGA_STEP_PATTERN),
            )
            if not pattern.fullmatch(value)
        ]
        if not_after is not None and not _MILLISECONDS_PATTERN.fullmatch(not_after):
            violations.append(FieldViolation(SAGA_NOT_AFTER, "milliseconds since the epoch"))
        if violations:
            raise InvalidRequest(violations, reason="SAGA_METADATA_INVALID")
        not_after_ms = None if not_after is None else int(not_after)
        return cls(saga_id=saga_id, step=step, not_after_ms=not_after_ms)

    @property
    def key(self) -> str:
        """The idempotency key as one string, `<saga_id>:<step>`."""
        return f"{self.saga_id}:{self.step}"


def _how_to_set(key: str, pattern: re.Pattern[str]) -> str:
    return (
        f"metadata {key} must match {pattern.pattern}; set it with"
        " grpcurl -H 'saga-id: demo-1' -H 'saga-step: reserve_stock'"
    )


class Step(ABC, Generic[RequestT, ResponseT, TxT]):
    """A pair of Do and Compensate. `TxT` is what the barrier's store gives it to work with."""

    service: ClassVar[str]
    """Full name of the step service, such as order.v1.CreateOrder."""

    @abstractmethod
    async def do(self, call: StepCall, request: RequestT, tx: TxT) -> ResponseT:
        """Make the effect inside `tx` and return the response.

        Raises:
            Rejected: for good; the effect is rolled back and the refusal stored.
        """

    @abstractmethod
    async def compensate(
        self, call: StepCall, request: RequestT, response: ResponseT, tx: TxT
    ) -> None:
        """Undo inside `tx` what `do` did for this request and response."""


@dataclass(frozen=True, slots=True)
class StepTypes:
    """The messages of one step service, found through its descriptor."""

    service: ServiceDescriptor
    request: type[Message]
    response: type[Message]
    compensation: type[Message]
    compensated: type[Message]

    @classmethod
    def of(cls, service: str) -> StepTypes:
        """Look the service up among the generated stubs that are imported.

        Raises:
            KeyError: no imported stub has it.
        """
        found = descriptor_pool.Default().FindServiceByName(service)
        do, undo = found.methods_by_name["Do"], found.methods_by_name["Compensate"]
        return cls(found, *_classes(do), *_classes(undo))


def _classes(method: MethodDescriptor) -> tuple[type[Message], type[Message]]:
    make = message_factory.GetMessageClass
    return make(method.input_type), make(method.output_type)


class GuardedStep(Protocol):
    """A step behind its barrier: what the server serves as Do and Compensate.

    Both raise `MeshError` for every answer that is not OK. `Rejected` is raised only once the
    refusal is stored; the server marks exactly these answers with trailing `saga-outcome: rejected`
    and every OK answer of Do with `saga-outcome: done`.
    """

    @property
    def types(self) -> StepTypes:
        """The messages of the step service."""
        ...

    async def do(self, call: StepCall, request: Message) -> Message:
        """Answer Do: run it, or replay what is stored."""
        ...

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        """Answer Compensate; the argument and the answer are of the step's own message types."""
        ...


@dataclass(frozen=True, slots=True)
class StepMethod:
    """One direction of a step, however its calls arrive."""

    service: ServiceDescriptor
    name: str
    """Do or Compensate."""
    request: type[Message]
    perform: Callable[[StepCall, Message], Awaitable[Message]]

    @property
    def path(self) -> str:
        """As grpc names it, such as /inventory.v1.ReserveStock/Do."""
        return f"/{self.service.full_name}/{self.name}"


def methods_of(step: GuardedStep) -> tuple[StepMethod, StepMethod]:
    """Do and Compensate."""
    types = step.types
    return (
        StepMethod(types.service, "Do", types.request, step.do),
        StepMethod(types.service, "Compensate", types.compensation, step.compensate),
    )
