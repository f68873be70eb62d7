"""What `Provider` promises, kept by the sandbox and by Stripe.

With STRIPE_API_KEY set to a test key the same tests run against Stripe (or STRIPE_API_BASE).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from uuid_utils import uuid7

from mesh.errors import RecordMissing
from mesh.money import Money
from payment_svc.provider import (
    Intent,
    IntentState,
    Passed,
    Provider,
    Refund,
    RefundState,
    Refused,
)
from payment_svc.stripe_provider import StripeProvider
from tests.integration.payment.till import AMOUNT, KEY, SDK_WARNS, VISA, Sandbox

pytestmark = SDK_WARNS


@pytest.fixture
async def provider(sandbox: Sandbox) -> AsyncIterator[Provider]:
    key = os.environ.get("STRIPE_API_KEY")
    base = os.environ.get("STRIPE_API_BASE", "https://api.stripe.com") if key else sandbox.url
    async with StripeProvider(
        api_key=key or KEY, api_base=base, tracer_provider=trace.NoOpTracerProvider()
    ) as provider:
        yield provider


def unique() -> str:
    return str(uuid7())


async def opened(provider: Provider, key: str) -> Intent:
    amount = Money(minor_units=AMOUNT, currency="EUR")
    return await provider.create(amount, {"saga_id": "contract"}, key)


async def charged(provider: Provider) -> Intent:
    intent = await opened(provider, unique())
    return await provider.confirm(intent.id, VISA, unique())


async def test_create_takes_no_money_and_one_key_makes_one_intent(provider: Provider) -> None:
    key = unique()
    intent = await opened(provider, key)
    assert (intent.state, intent.captured) == (IntentState.OPEN, 0)
    assert await opened(provider, key) == intent


async def test_confirm_takes_the_money_once_whatever_the_keys(provider: Provider) -> None:
    intent = await charged(provider)
    assert (intent.state, intent.captured) == (IntentState.SUCCEEDED, AMOUNT)
    with pytest.raises(Passed):
        await provider.confirm(intent.id, VISA, unique())
    with pytest.raises(Passed):
        await provider.cancel(intent.id)
    assert await provider.retrieve(intent.id) == intent


async def test_a_decline_is_a_clear_no_that_leaves_the_intent_open(provider: Provider) -> None:
    intent = await opened(provider, unique())
    with pytest.raises(Refused, match="INSUFFICIENT_FUNDS"):
        await provider.confirm(intent.id, "pm_card_chargeDeclinedInsufficientFunds", unique())
    found = await provider.retrieve(intent.id)
    assert (found.state, found.captured) == (IntentState.OPEN, 0)
    assert found.decline_reason == "INSUFFICIENT_FUNDS"


async def test_a_card_that_wants_its_customer_is_refused(provider: Provider) -> None:
    intent = await opened(provider, unique())
    with pytest.raises(Refused, match="AUTHENTICATION_REQUIRED"):
        await provider.confirm(intent.id, "pm_card_authenticationRequired", unique())


async def test_a_token_that_nobody_knows_is_refused(provider: Provider) -> None:
    intent = await opened(provider, unique())
    with pytest.raises(Refused, match="PAYMENT_METHOD_UNKNOWN"):
        await provider.confirm(intent.id, "pm_nobody_knows_me", unique())


async def test_a_cancelled_intent_takes_nothing_any_more(provider: Provider) -> None:
    intent = await opened(provider, unique())
    assert (await provider.cancel(intent.id)).state is IntentState.CANCELLED
    with pytest.raises(Passed):
        await provider.confirm(intent.id, VISA, unique())
    with pytest.raises(Passed):
        await provider.cancel(intent.id)
    found = await provider.retrieve(intent.id)
    assert (found.state, found.captured) == (IntentState.CANCELLED, 0)


async def test_all_is_given_back_once_whatever_the_keys(provider: Provider) -> None:
    intent = await charged(provider)
    assert await provider.refunds(intent.id) == []
    refund = await provider.refund(intent.id, unique())
    assert refund == Refund(amount=AMOUNT, state=RefundState.SUCCEEDED)
    with pytest.raises(Passed):
        await provider.refund(intent.id, unique())
    assert await provider.refunds(intent.id) == [refund]


async def test_an_amount_that_cannot_be_charged_is_refused(provider: Provider) -> None:
    too_much = Money(minor_units=10**9, currency="EUR")
    with pytest.raises(Refused, match="AMOUNT_TOO_LARGE"):
        await provider.create(too_much, {}, unique())


async def test_an_intent_that_the_provider_does_not_know_is_missing(provider: Provider) -> None:
    with pytest.raises(RecordMissing):
        await provider.retrieve("pi_nobody_knows_me")
