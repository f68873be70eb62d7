"""The provider through the `stripe` SDK: Stripe itself, or the sandbox.

Of a PaymentIntent only the JSON is read: to make it one of the SDK's objects costs nearly as much
as all the rest of a call. The SDK's own retries are off: when to ask again is the saga's decision.
Its log is kept at warnings, for below that it quotes what was sent, card tokens included.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import quote_plus

import aiohttp
import stripe
from opentelemetry import trace

from mesh.money import InvalidMoney, Money
from payment_svc.amount import to_stripe
from payment_svc.provider import Intent, IntentState, Refund, RefundState, Refused
from payment_svc.stripe_errors import decline_reason, translate, unclear

TIMEOUT_SECONDS = 20
"""Limit of one call; an attempt of the saga usually has 30."""

_INTENTS = {
    "requires_payment_method": IntentState.OPEN,
    "requires_confirmation": IntentState.OPEN,
    "requires_action": IntentState.OPEN,
    "processing": IntentState.PROCESSING,
    "succeeded": IntentState.SUCCEEDED,
    "canceled": IntentState.CANCELLED,
}
_REFUNDS = {
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}


class StripeProvider:
    """`Provider` over the SDK; close it when done."""

    def __init__(
        self, *, api_key: str, api_base: str, tracer_provider: trace.TracerProvider
    ) -> None:
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base},
            http_client=self._http,
            max_network_retries=0,
        )
        self._tracer = tracer_provider.get_tracer("payment_svc")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        close: Callable[[], Awaitable[None]] = self._http.close_async  # untyped in the SDK
        await close()

    async def create(self, amount: Money, metadata: Mapping[str, str], key: str) -> Intent:
        """See `Provider`."""
        try:
            minor = to_stripe(amount)
        except InvalidMoney:
            raise Refused("AMOUNT_INVALID") from None
        wanted = {
            "amount": minor,
            "currency": amount.currency.lower(),
            "metadata": dict(metadata),
            "allowed_payment_method_types": ["card"],
        }
        async with self._asking("create"):
            return await self._intent("post", "", idempotency_key=key, **wanted)

    async def confirm(self, intent_id: str, payment_method: str, key: str) -> Intent:
        """See `Provider`."""
        wanted = {
            "payment_method": payment_method,
            "off_session": True,
            "error_on_requires_action": True,
        }
        async with self._asking("confirm", intent_id):
            path = f"/{quote_plus(intent_id)}/confirm"
            return await self._intent("post", path, idempotency_key=key, **wanted)

    async def retrieve(self, intent_id: str) -> Intent:
        """See `Provider`."""
        async with self._asking("retrieve", intent_id):
            return await self._intent("get", f"/{quote_plus(intent_id)}")

    async def cancel(self, intent_id: str) -> Intent:
        """See `Provider`."""
        async with self._asking("cancel", intent_id):
            return await self._intent("post", f"/{quote_plus(intent_id)}/cancel")

    async def refunds(self, intent_id: str) -> list[Refund]:
        """See `Provider`."""
        async with self._asking("list refunds", intent_id):
            pages = await self._client.v1.refunds.list_async(
                {"payment_intent": intent_id, "limit": 100}
            )
            return [_refund(refund) async for refund in pages.auto_paging_iter()]

    async def refund(self, intent_id: str, key: str) -> Refund:
        """See `Provider`."""
        async with self._asking("refund", intent_id):
            return _refund(
                await self._client.v1.refunds.create_async(
                    {"payment_intent": intent_id}, {"idempotency_key": key}
                )
            )

    async def _intent(self, verb: str, path: str, **wanted: object) -> Intent:
        asking = self._client.raw_request_async
        answer = await asking(verb, f"/v1/payment_intents{path}", **wanted)
        return _intent(answer.data)

    @asynccontextmanager
    async def _asking(self, operation: str, intent_id: str = "") -> AsyncIterator[None]:
        with self._tracer.start_as_current_span(
            f"payment provider {operation}",
            kind=trace.SpanKind.CLIENT,
            attributes={"payment.intent": intent_id},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except stripe.StripeError as error:
                translated = translate(error, intent_id)
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise translated from None
            except (aiohttp.ClientError, TimeoutError):  # of an answer that broke off: the SDK
                span.set_status(trace.StatusCode.ERROR, "APIConnectionError")  # lets these pass
                raise unclear("PROVIDER_UNREACHABLE") from None


def _intent(told: object) -> Intent:
    intent = told if isinstance(told, dict) else {}
    state = _INTENTS.get(intent.get("status", ""))
    if state is None:
        raise unclear("PROVIDER_STATE_UNKNOWN")
    error = intent.get("last_payment_error")
    reason = decline_reason(error.get("code"), error.get("decline_code")) if error else ""
    return Intent(
        id=intent["id"], state=state, captured=intent["amount_received"], decline_reason=reason
    )


def _refund(refund: stripe.Refund) -> Refund:
    state = _REFUNDS.get(refund.status or "")
    if state is None:
        raise unclear("PROVIDER_STATE_UNKNOWN")
    return Refund(amount=refund.amount, state=state)
