"""What the SDK raises, as the port's errors: the one place that reads Stripe's error codes.

    402 card_error                                   Refused, with the reason of the decline
    400 payment_intent_unexpected_state              Passed
    400 charge_already_refunded                      Passed
    400 resource_missing of the payment method       Refused PAYMENT_METHOD_UNKNOWN
    404 resource_missing                             RecordMissing
    other 400 invalid_request_error                  Refused, with Stripe's code as the reason
    5xx                                              ProviderBroken
    409, 429, 401, 403, no answer, anything else     Retry: unknown

Stripe's own words are never passed on, nor is its error chained to ours: they quote what was sent.
"""

from __future__ import annotations

import re

import stripe

from mesh.errors import RecordMissing, Retry
from payment_svc.provider import Passed, ProviderBroken, Refused

_PASSED = frozenset({"payment_intent_unexpected_state", "charge_already_refunded"})
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_UNCLEAR: tuple[tuple[type[stripe.StripeError], str], ...] = (
    (stripe.RateLimitError, "PROVIDER_BUSY"),
    (stripe.APIConnectionError, "PROVIDER_UNREACHABLE"),
    (stripe.IdempotencyError, "PROVIDER_KEY_REUSED"),
    (stripe.AuthenticationError, "PROVIDER_REFUSES_CREDENTIALS"),
    (stripe.PermissionError, "PROVIDER_REFUSES_CREDENTIALS"),
)


def translate(error: stripe.StripeError, intent_id: str) -> Exception:
    """The port's error for one of the SDK; `intent_id` is empty where none was named."""
    if isinstance(error, stripe.CardError):
        told = getattr(error.error, "decline_code", None)
        return Refused(decline_reason(error.code, told))
    if isinstance(error, stripe.InvalidRequestError):
        return _invalid(error, intent_id)
    code = error.http_status or 0
    if code >= 500:
        return ProviderBroken(
            "PROVIDER_BROKEN",
            f"the payment provider failed with {code}",
            metadata={"http_code": str(code)},
        )
    if code == 409:
        return unclear("PROVIDER_BUSY")
    reasons = (reason for kind, reason in _UNCLEAR if isinstance(error, kind))
    return unclear(next(reasons, "PROVIDER_UNCLEAR"))


def unclear(reason: str) -> Retry:
    """The outcome of a call that told nothing."""
    return Retry(reason, f"the payment provider gave no clear answer: {reason}")


def decline_reason(code: str | None, decline_code: str | None) -> str:
    """Why the bank said no, such as CARD_DECLINED, by two members of Stripe's error object.

    Further decline codes (a stolen card, suspected fraud) are for the merchant's eyes in the
    provider's own console, not for the customer: they read CARD_DECLINED.
    """
    if decline_code == "insufficient_funds":
        return "INSUFFICIENT_FUNDS"
    return _reason(code, "PAYMENT_DECLINED")


def _invalid(error: stripe.InvalidRequestError, intent_id: str) -> Exception:
    if error.code in _PASSED:
        return Passed(error.code)
    if error.code == "resource_missing" and error.param == "payment_method":
        return Refused("PAYMENT_METHOD_UNKNOWN")
    if error.code == "resource_missing":
        return RecordMissing(
            "PAYMENT_MISSING",
            f"the payment provider does not know payment {intent_id}",
            metadata={"provider_reference": intent_id},
        )
    if error.http_status == 404:
        return unclear("PROVIDER_UNCLEAR")  # something else than the provider answers there
    return Refused(_reason(error.code, "PAYMENT_REQUEST_INVALID"))


def _reason(code: str | None, otherwise: str) -> str:
    return code.upper() if code and _CODE.fullmatch(code) else otherwise
