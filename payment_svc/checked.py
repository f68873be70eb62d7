"""The check before the barrier: what can never be charged leaves no trace, not even its bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from mesh.errors import InvalidRequest
from mesh.step import GuardedStep, StepCall, StepTypes
from payment_svc.validation import charge_violations
from protos.payment.v1 import payment_pb2


class CheckedCharge:
    """A guarded ChargePayment; the barrier stores requests, and a card number must not be in one.

    Compensate is not checked: a Do that was refused here is undone too, and has to succeed.
    """

    def __init__(self, guarded: GuardedStep) -> None:
        self._guarded = guarded

    @property
    def types(self) -> StepTypes:
        """The messages of the step service."""
        return self._guarded.types

    async def do(self, call: StepCall, request: Message) -> Message:
        """Answer Do.

        Raises:
            InvalidRequest: with every field that is wrong; nothing was stored.
        """
        assert isinstance(request, payment_pb2.ChargePaymentRequest)  # noqa: S101
        if violations := list(charge_violations(request)):
            raise InvalidRequest(violations)
        return await self._guarded.do(call, request)

    async def compensate(self, call: StepCall, compensation: Message) -> Message:
        """Answer Compensate."""
        return await self._guarded.compensate(call, compensation)
