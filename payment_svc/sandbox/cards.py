"""The test payment methods: Stripe's own names where Stripe has one.

The sandbox's own: `pm_card_processing` and `pm_card_processingThenDeclined` are `processing` until
they settle, as bank debits are at Stripe; `pm_card_chargeDeclinedOnce` has money the second time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Approved:
    """The money moves."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The bank refuses."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True, slots=True)
class DeclinedOnce:
    """The bank refuses, and changes its mind when it is asked again."""

    first: Declined


@dataclass(frozen=True, slots=True)
class NeedsAuthentication:
    """The bank wants the customer to be there."""


@dataclass(frozen=True, slots=True)
class Processing:
    """The verdict comes later."""

    then: Approved | Declined


Verdict = Approved | Declined | DeclinedOnce | NeedsAuthentication | Processing

AUTHENTICATION_REQUIRED = Declined(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)


def _card_declined(decline_code: str, message: str = "Your card was declined.") -> Declined:
    return Declined("card_declined", decline_code, message)


CARDS: dict[str, Verdict] = {
    "pm_card_visa": Approved(),
    "pm_card_mastercard": Approved(),
    "pm_card_amex": Approved(),
    "pm_card_chargeDeclined": _card_declined("generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": _card_declined(
        "insufficient_funds", "Your card has insufficient funds."
    ),
    "pm_card_chargeDeclinedLostCard": _card_declined("lost_card"),
    "pm_card_chargeDeclinedExpiredCard": Declined("expired_card", None, "Your card has expired."),
    "pm_card_chargeDeclinedIncorrectCvc": Declined(
        "incorrect_cvc", None, "Your card's security code is incorrect."
    ),
    "pm_card_chargeDeclinedProcessingError": Declined(
        "processing_error", None, "An error occurred while processing your card."
    ),
    "pm_card_chargeDeclinedOnce": DeclinedOnce(_card_declined("generic_decline")),
    "pm_card_authenticationRequired": NeedsAuthentication(),
    "pm_card_processing": Processing(Approved()),
    "pm_card_processingThenDeclined": Processing(_card_declined("generic_decline")),
}
