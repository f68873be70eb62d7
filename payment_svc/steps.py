"""The step that charges a card, in stages: no transaction spans the provider and our database.

The barrier's row is DOING before anything happens. Then, with K the step's key:

    1  create the intent, which takes no money           provider, key K
    2  note its id; overtaken by Compensate: cancel it   our database
    3  confirm: the money moves                          provider, key K-confirm
    4  no clear answer: read the intent by its id        provider
       succeeded: DONE    processing: ask again later    open: confirm again
    to reject: note the reason, cancel the intent, and only when it reads cancelled: REJECTED

Compensate comes after the row reads COMPENSATING, so that stage 2 fails from then on: cancel an
open intent, refund one that succeeded, leave a cancelled one.

Why a charge cannot happen twice: one step confirms one intent, the one that is noted, and the
provider lets an intent succeed once, whatever the keys. Keys only save work; after 24 hours they
mean nothing, and an intent that stage 2 lost has never been confirmed. A 5xx is what its key
answers for ever, so the next try of that call has a new numbered key.

What becomes of the payment is written for readers along with stage 2 and with the answer. What is
refused or given back is written before the barrier stores it: a crash in between repeats the stage,
and no reader is ever told something that did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import assert_never

import grpc
import structlog

from mesh import money
from mesh.barrier.staged import Note, StagedStep, StageRecord, Superseded
from mesh.errors import MeshError, Rejected, Retry
from mesh.step import StepCall
from payment_svc.payment import Charge, PaymentState
from payment_svc.provider import (
    Intent,
    IntentState,
    Passed,
    Provider,
    ProviderBroken,
    Refund,
    RefundState,
    Refused,
)
from payment_svc.store import Payments
from protos.payment.v1 import payment_pb2

INTENT = "intent"
PAYMENT_ID = "payment_id"
REJECTION = "rejection"
CREATE = "create"
CONFIRM = "confirm"
REFUND = "refund"
"""The note: id of the intent and of the payment, reason of a rejection, numbers of the keys."""

_log = structlog.stdlib.get_logger()


class RefundFailed(MeshError):
    """The provider cannot give the money back: somebody has to."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ChargePayment(
    StagedStep[payment_pb2.ChargePaymentRequest, payment_pb2.ChargePaymentResponse]
):
    """Charges a card once; gives the money back once. `new_id` makes UUIDv7s."""

    service = "payment.v1.ChargePayment"

    def __init__(self, provider: Provider, payments: Payments, new_id: Callable[[], str]) -> None:
        self._provider = provider
        self._payments = payments
        self._new_id = new_id

    async def do(
        self, call: StepCall, request: payment_pb2.ChargePaymentRequest, record: StageRecord
    ) -> payment_pb2.ChargePaymentResponse:
        """Charge, or go on with a charge.

        Raises:
            Rejected: CARD_DECLINED or another reason; nothing is charged and nothing will be.
            Retry: whether it is charged is not known yet.
        """
        if INTENT not in record.note:
            await self._open(call, request, record)
        charge = _charge(call, request, record.note)
        reason = str(record.note.get(REJECTION, "")) or await self._verdict(call, request, record)
        if reason and await self._withdrawn(charge, record, reason):
            await self._mark(charge, PaymentState.DECLINED, reason)
            raise _rejected(reason)
        record.with_response(self._payments.marking(charge, PaymentState.CHARGED))
        _log.info("payment.charged", payment_id=charge.payment_id, reason="")
        return payment_pb2.ChargePaymentResponse(
            payment_id=charge.payment_id, provider_reference=charge.provider_reference
        )

    async def compensate(
        self, call: StepCall, request: payment_pb2.ChargePaymentRequest, record: StageRecord
    ) -> None:
        """Refund what was charged, or make sure that nothing will be.

        Raises:
            RefundFailed: REFUND_FAILED; no try can succeed until somebody has paid it back.
            Retry: whether it is undone is not known yet.
        """
        if INTENT not in record.note:
            return
        charge = _charge(call, request, record.note)
        await self._mark(charge, PaymentState.REFUNDING)
        intent = await self._provider.retrieve(charge.provider_reference)
        if intent.state not in _FINAL:
            intent = await self._cancel(charge)
        if intent.state is IntentState.SUCCEEDED:
            await self._give_back(call, record, intent)
        await self._mark(charge, PaymentState.REFUNDED)

    async def _open(
        self, call: StepCall, request: payment_pb2.ChargePaymentRequest, record: StageRecord
    ) -> None:
        if REJECTION in record.note:
            raise _rejected(str(record.note[REJECTION]))
        record.refuse_expired()
        amount = money.from_proto(request.amount)
        metadata = {"saga_id": call.saga_id, "step": call.step, "order_id": request.order_id}
        try:
            intent = await self._provider.create(amount, metadata, _key(call, CREATE, record))
        except Refused as refused:
            await record.advance({**record.note, REJECTION: refused.reason})  # no twin is ahead
            raise _rejected(refused.reason) from refused
        except ProviderBroken:
            await _next_key(CREATE, record)
            raise
        note = {**record.note, INTENT: intent.id, PAYMENT_ID: self._new_id()}
        pending = self._payments.marking(_charge(call, request, note), PaymentState.PENDING)
        try:
            await record.advance(note, along=pending)
        except Superseded:
            with suppress(Passed):  # it is a twin's as well, and Compensate has seen to it
                await self._provider.cancel(intent.id)
            raise

    async def _verdict(
        self, call: StepCall, request: payment_pb2.ChargePaymentRequest, record: StageRecord
    ) -> str:
        """Ask for the money: empty when it was taken, else the reason why not."""
        record.refuse_expired()
        try:
            intent = await self._confirm(call, request, record)
        except Refused as refused:
            return refused.reason
        match intent.state:
            case IntentState.SUCCEEDED:
                return ""
            case IntentState.CANCELLED:
                return intent.decline_reason or "PAYMENT_CANCELLED"
            case IntentState.OPEN if intent.decline_reason:
                return intent.decline_reason
            case IntentState.OPEN | IntentState.PROCESSING:
                raise _undecided("the charge", intent)
            case never:
                assert_never(never)

    async def _confirm(
        self, call: StepCall, request: payment_pb2.ChargePaymentRequest, record: StageRecord
    ) -> Intent:
        """Confirm once; whatever was answered, the intent as it is now."""
        intent_id = str(record.note[INTENT])
        try:
            key = _key(call, CONFIRM, record)
            intent = await self._provider.confirm(intent_id, request.payment_method, key)
        except ProviderBroken:
            intent = await self._provider.retrieve(intent_id)
            if intent.state is IntentState.OPEN:
                await _next_key(CONFIRM, record)
            return intent
        except (Passed, Retry):
            return await self._provider.retrieve(intent_id)
        answered = intent.state is IntentState.SUCCEEDED
        return intent if answered else await self._provider.retrieve(intent_id)

    async def _withdrawn(self, charge: Charge, record: StageRecord, reason: str) -> bool:
        """Decide to reject, then make it true; False when a straggling confirm was quicker."""
        if REJECTION not in record.note:
            await record.advance({**record.note, REJECTION: reason})
        intent = await self._cancel(charge)
        return intent.state is IntentState.CANCELLED

    async def _cancel(self, charge: Charge) -> Intent:
        """Cancel the intent; it reads CANCELLED afterwards, or SUCCEEDED."""
        try:
            intent = await self._provider.cancel(charge.provider_reference)
        except Passed:
            intent = await self._provider.retrieve(charge.provider_reference)
        if intent.state not in _FINAL:
            raise _undecided("the cancellation", intent)
        return intent

    async def _give_back(self, call: StepCall, record: StageRecord, intent: Intent) -> None:
        refunds = await self._provider.refunds(intent.id)
        if _is_returned(refunds, intent):
            return
        try:
            made = await self._provider.refund(intent.id, _key(call, REFUND, record))
        except Passed:  # a twin has asked for all that was left; it may still be under way
            _is_returned(await self._provider.refunds(intent.id), intent)
            return
        except Refused as refused:
            raise _refund_failed(intent, refused.reason) from refused
        except ProviderBroken:
            await _next_key(REFUND, record)
            raise
        if not _is_returned([*refunds, made], intent):
            raise _undecided("the refund", intent)

    async def _mark(self, charge: Charge, state: PaymentState, reason: str = "") -> None:
        if await self._payments.mark(charge, state, failure_reason=reason):
            _log.info(f"payment.{state.lower()}", payment_id=charge.payment_id, reason=reason)


_FINAL = frozenset({IntentState.SUCCEEDED, IntentState.CANCELLED})


def _charge(call: StepCall, request: payment_pb2.ChargePaymentRequest, note: Note) -> Charge:
    return Charge(
        payment_id=str(note[PAYMENT_ID]),
        order_id=request.order_id,
        saga_id=call.saga_id,
        amount=money.from_proto(request.amount),
        provider_reference=str(note[INTENT]),
    )


def _key(call: StepCall, what: str, record: StageRecord) -> str:
    """K, K-confirm, K-refund; K-2, K-confirm-2, K-refund-2 where the first was broken."""
    base = call.key if what == CREATE else f"{call.key}-{what}"
    number = record.note.get(what, 1)
    return base if number == 1 else f"{base}-{number}"


async def _next_key(what: str, record: StageRecord) -> None:
    await record.advance({**record.note, what: int(record.note.get(what, 1)) + 1})


def _is_returned(refunds: Iterable[Refund], intent: Intent) -> bool:
    """Whether all is given back; False when (more of) it has yet to be asked for.

    Raises:
        Retry: a refund is still under way.
        RefundFailed: a refund has failed, and nobody has made up for it.
    """
    amounts = dict.fromkeys(RefundState, 0)
    for refund in refunds:
        amounts[refund.state] += refund.amount
    if amounts[RefundState.SUCCEEDED] >= intent.captured:
        return True
    if amounts[RefundState.PENDING]:
        raise _undecided("the refund", intent)
    if amounts[RefundState.FAILED]:
        raise _refund_failed(intent, "REFUND_RETURNED")
    return False


def _rejected(reason: str) -> Rejected:
    return Rejected(reason, f"the payment provider will not charge: {reason}")


def _undecided(what: str, intent: Intent) -> Retry:
    return Retry(
        "PAYMENT_UNDECIDED",
        f"{what} of {intent.id} is undecided: the provider says {intent.state.value}",
        metadata={"what": what, "provider_reference": intent.id, "state": intent.state.value},
    )


def _refund_failed(intent: Intent, cause: str) -> RefundFailed:
    return RefundFailed(
        "REFUND_FAILED",
        f"payment {intent.id} cannot be refunded ({cause}): pay it back by hand, then retry",
        metadata={"provider_reference": intent.id, "cause": cause},
    )
