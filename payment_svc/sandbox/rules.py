"""What each operation does to a PaymentIntent or a refund: pure, time and ids are arguments.

    create -> requires_payment_method | requires_confirmation
    confirm                    -> succeeded | processing | requires_action | requires_payment_method
    processing, settled        -> succeeded | requires_payment_method
    cancel, unless processing  -> canceled

A PaymentIntent takes money once at most: `succeeded` and `canceled` are final.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from payment_svc.sandbox.cards import (
    AUTHENTICATION_REQUIRED,
    CARDS,
    Approved,
    Declined,
    DeclinedOnce,
    NeedsAuthentication,
    Processing,
)
from payment_svc.sandbox.errors import ApiError, Json, invalid, missing
from payment_svc.sandbox.objects import (
    ConfirmIntent,
    CreateIntent,
    CreateRefund,
    IntentState,
    PaymentIntent,
    Refund,
    RefundState,
)

MAX_AMOUNT = 99_999_999
"""Stripe takes eight digits, of whatever currency."""

OPEN = frozenset(
    {
        IntentState.REQUIRES_PAYMENT_METHOD,
        IntentState.REQUIRES_CONFIRMATION,
        IntentState.REQUIRES_ACTION,
    }
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When an operation happens, and what it may use up."""

    now: int
    """Seconds since the epoch."""
    new_id: str
    """Ends the id of an object made now."""
    settle_seconds: int
    """How long `processing` and `pending` last."""


def create(parameters: CreateIntent, moment: Moment) -> PaymentIntent:
    """Make a PaymentIntent that has not taken anything yet.

    Raises:
        ApiError: too much, or there is no such payment method.
    """
    if parameters.amount > MAX_AMOUNT:
        message = f"Amount must be no more than {MAX_AMOUNT}."
        raise invalid(message, code="amount_too_large", param="amount")
    token = parameters.payment_method
    if token is not None and token not in CARDS:
        raise missing("PaymentMethod", token, param="payment_method", http_code=400)
    return PaymentIntent(
        id=f"pi_{moment.new_id}",
        amount=parameters.amount,
        created=moment.now,
        currency=parameters.currency,
        description=parameters.description,
        metadata=parameters.metadata,
        payment_method=token,
        status=IntentState.REQUIRES_CONFIRMATION if token else IntentState.REQUIRES_PAYMENT_METHOD,
    )


def confirm(intent: PaymentIntent, parameters: ConfirmIntent, moment: Moment) -> PaymentIntent:
    """Ask the bank. A decline is no exception: it is a state with `last_payment_error`.

    Raises:
        ApiError: not in this state, or there is no such payment method.
    """
    if intent.status not in OPEN:
        raise unexpected_state(intent, "confirm")
    token = parameters.payment_method or intent.payment_method
    if token is None:
        raise invalid(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            code="payment_intent_unexpected_state",
        )
    if token not in CARDS:
        raise missing("PaymentMethod", token, param="payment_method", http_code=400)
    return _asked(intent.model_copy(update={"payment_method": token}), parameters, moment)


def _asked(intent: PaymentIntent, parameters: ConfirmIntent, moment: Moment) -> PaymentIntent:
    match CARDS[intent.payment_method or ""]:
        case Approved():
            return _charged(intent, moment)
        case Declined() as declined:
            return _declined(intent, declined)
        case DeclinedOnce() as once:
            again = intent.last_payment_error is not None
            return _charged(intent, moment) if again else _declined(intent, once.first)
        case NeedsAuthentication():
            if parameters.off_session or parameters.error_on_requires_action:
                return _declined(intent, AUTHENTICATION_REQUIRED)
            return _waiting(intent, IntentState.REQUIRES_ACTION)
        case Processing():
            return _waiting(intent, IntentState.PROCESSING, moment.now + moment.settle_seconds)
        case never:
            assert_never(never)


def _waiting(
    intent: PaymentIntent, state: IntentState, settle_time: int | None = None
) -> PaymentIntent:
    update = {"status": state, "settle_time": settle_time, "last_payment_error": None}
    return intent.model_copy(update=update)


def _charged(intent: PaymentIntent, moment: Moment) -> PaymentIntent:
    return intent.model_copy(
        update={
            "status": IntentState.SUCCEEDED,
            "amount_received": intent.amount,
            "last_payment_error": None,
            "latest_charge": f"ch_{moment.new_id}",
            "settle_time": None,
        }
    )


def _declined(intent: PaymentIntent, declined: Declined) -> PaymentIntent:
    error: Json = {
        "type": "card_error",
        "code": declined.code,
        "message": declined.message,
        "payment_method": {"id": intent.payment_method, "object": "payment_method"},
    }
    if declined.decline_code is not None:
        error["decline_code"] = declined.decline_code
    return intent.model_copy(
        update={
            "status": IntentState.REQUIRES_PAYMENT_METHOD,
            "payment_method": None,
            "last_payment_error": error,
            "settle_time": None,
        }
    )


def settle(intent: PaymentIntent, moment: Moment) -> PaymentIntent:
    """End `processing`: its time has come."""
    verdict = CARDS.get(intent.payment_method or "")
    if isinstance(verdict, Processing) and isinstance(verdict.then, Declined):
        return _declined(intent, verdict.then)
    return _charged(intent, moment)


def settle_refund(refund: Refund) -> Refund:
    """End `pending`: its time has come."""
    return refund.model_copy(update={"status": RefundState.SUCCEEDED, "settle_time": None})


def cancel(intent: PaymentIntent, moment: Moment) -> PaymentIntent:
    """Make sure that nothing will ever be taken.

    Raises:
        ApiError: not in this state.
    """
    if intent.status not in OPEN:
        raise unexpected_state(intent, "cancel")
    return intent.model_copy(update={"status": IntentState.CANCELED, "canceled_at": moment.now})


def refund(
    intent: PaymentIntent, earlier: Iterable[Refund], parameters: CreateRefund, moment: Moment
) -> Refund:
    """Give money back; never more than was taken.

    Raises:
        ApiError: nothing was taken, or nothing (or not this much) is left.
    """
    if intent.status is not IntentState.SUCCEEDED:
        message = "This PaymentIntent does not have a successful charge to refund."
        raise invalid(message, code="payment_intent_unexpected_state", param="payment_intent")
    left = intent.amount_received - sum(
        each.amount for each in earlier if each.status is not RefundState.FAILED
    )
    if left == 0:
        message = f"Charge {intent.latest_charge} has already been refunded."
        raise invalid(message, code="charge_already_refunded")
    amount = left if parameters.amount is None else parameters.amount
    if amount > left:
        raise invalid("Refund amount is greater than unrefunded amount.", code="amount_too_large")
    return Refund(
        id=f"re_{moment.new_id}",
        amount=amount,
        charge=intent.latest_charge,
        created=moment.now,
        currency=intent.currency,
        metadata=parameters.metadata,
        payment_intent=intent.id,
        status=RefundState.SUCCEEDED,
    )


def failed(refund: Refund) -> Refund:
    """The refund as it is when the bank sends the money back to us."""
    update = {"status": RefundState.FAILED, "failure_reason": "lost_or_stolen_card"}
    return refund.model_copy(update=update)


def pending(refund: Refund, moment: Moment) -> Refund:
    """The refund as it is while the money is under way."""
    settle_time = moment.now + moment.settle_seconds
    return refund.model_copy(update={"status": RefundState.PENDING, "settle_time": settle_time})


def unexpected_state(intent: PaymentIntent, verb: str) -> ApiError:
    """The PaymentIntent is past this operation."""
    return ApiError(
        400,
        "invalid_request_error",
        f"You cannot {verb} this PaymentIntent because it has a status of {intent.status}.",
        code="payment_intent_unexpected_state",
        payment_intent=intent.shown(),
    )


def card_error(intent: PaymentIntent) -> ApiError:
    """The bank refused; answers a confirm that left `last_payment_error`."""
    fields = dict(intent.last_payment_error or {})
    message = str(fields.pop("message", ""))
    kind = str(fields.pop("type", "card_error"))
    return ApiError(402, kind, message, **fields, payment_intent=intent.shown())
