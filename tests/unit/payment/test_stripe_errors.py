from __future__ import annotations

from collections.abc import Callable

import pytest
import stripe

from mesh.errors import MeshError, RecordMissing, Retry
from payment_svc.provider import Passed, ProviderBroken, Refused
from payment_svc.stripe_errors import translate

SECRET = "pm_secret"

Make = Callable[..., stripe.StripeError]
INVALID: Make = stripe.InvalidRequestError  # some of the SDK's errors are untyped
CARD: Make = stripe.CardError
UNREACHABLE: Make = stripe.APIConnectionError


def invalid(code: str | None, *, param: str | None = None, http: int = 400) -> stripe.StripeError:
    return INVALID(f"about '{SECRET}'", param, code, http_status=http)


def card(code: str | None, decline_code: str | None = None) -> stripe.StripeError:
    body = {"error": {"code": code, "decline_code": decline_code, "message": SECRET}}
    return CARD(SECRET, None, code or "", http_status=402, json_body=body)


def api(http: int | None) -> stripe.StripeError:
    return stripe.APIError(SECRET, http_status=http)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (card("card_declined", "generic_decline"), "CARD_DECLINED"),
        (card("card_declined", "stolen_card"), "CARD_DECLINED"),
        (card("card_declined", "insufficient_funds"), "INSUFFICIENT_FUNDS"),
        (card("authentication_required", "authentication_required"), "AUTHENTICATION_REQUIRED"),
        (card("expired_card"), "EXPIRED_CARD"),
        (card(None), "PAYMENT_DECLINED"),
        (card("Not A Code"), "PAYMENT_DECLINED"),
        (invalid("amount_too_small", param="amount"), "AMOUNT_TOO_SMALL"),
        (invalid("resource_missing", param="payment_method"), "PAYMENT_METHOD_UNKNOWN"),
        (invalid(None), "PAYMENT_REQUEST_INVALID"),
    ],
)
def test_a_clear_no_has_a_reason(error: stripe.StripeError, reason: str) -> None:
    refused = translate(error, "pi_1")
    assert isinstance(refused, Refused)
    assert refused.reason == reason


@pytest.mark.parametrize("code", ["payment_intent_unexpected_state", "charge_already_refunded"])
def test_a_payment_that_has_moved_on_is_to_be_read_again(code: str) -> None:
    assert isinstance(translate(invalid(code), "pi_1"), Passed)


def test_a_payment_that_the_provider_does_not_know_is_data_loss() -> None:
    error = translate(invalid("resource_missing", param="intent", http=404), "pi_1")
    assert isinstance(error, RecordMissing)
    assert error.metadata == {"provider_reference": "pi_1"}


@pytest.mark.parametrize("http", [500, 502, 503])
def test_a_provider_that_fails_may_do_so_again_under_this_key(http: int) -> None:
    assert isinstance(translate(api(http), "pi_1"), ProviderBroken)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (api(409), "PROVIDER_BUSY"),
        (stripe.RateLimitError(SECRET, http_status=429), "PROVIDER_BUSY"),
        (UNREACHABLE(SECRET), "PROVIDER_UNREACHABLE"),
        (stripe.IdempotencyError(SECRET, http_status=400), "PROVIDER_KEY_REUSED"),
        (stripe.AuthenticationError(SECRET, http_status=401), "PROVIDER_REFUSES_CREDENTIALS"),
        (stripe.PermissionError(SECRET, http_status=403), "PROVIDER_REFUSES_CREDENTIALS"),
        (api(None), "PROVIDER_UNCLEAR"),
        (invalid(None, http=404), "PROVIDER_UNCLEAR"),
    ],
)
def test_everything_else_is_unknown(error: stripe.StripeError, reason: str) -> None:
    unclear = translate(error, "pi_1")
    assert isinstance(unclear, Retry)
    assert not isinstance(unclear, ProviderBroken)
    assert unclear.reason == reason


@pytest.mark.parametrize("error", [card("x"), invalid("y"), api(500), api(409)])
def test_the_providers_words_are_never_passed_on(error: stripe.StripeError) -> None:
    ours = translate(error, "pi_1")
    metadata = ours.metadata if isinstance(ours, MeshError) else {}
    assert SECRET not in f"{ours!r} {ours} {metadata}"
