"""The sandbox through the real `stripe` SDK: what Stripe does, it does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import stripe

from local.ports import HOST, free_port
from local.service import serves_http, service
from tests.integration.payment.till import AMOUNT, DAY, KEY, SDK_WARNS, VISA, Sandbox

pytestmark = SDK_WARNS


class Client:
    """The SDK, with retries off, as the payment service uses it."""

    def __init__(self, url: str, http: stripe.HTTPXClient, key: str = KEY) -> None:
        sdk = stripe.StripeClient(
            key, base_addresses={"api": url}, http_client=http, max_network_retries=0
        )
        self.intents = sdk.v1.payment_intents
        self.refunds = sdk.v1.refunds

    async def open(self, key: str | None = None, amount: int = AMOUNT) -> stripe.PaymentIntent:
        return await self.intents.create_async(
            {"amount": amount, "currency": "eur", "metadata": {"saga_id": "s-1", "step": "pay"}},
            {"idempotency_key": key or unique()},
        )

    async def confirm(
        self, intent: stripe.PaymentIntent, card: str = VISA, key: str | None = None
    ) -> stripe.PaymentIntent:
        return await self.intents.confirm_async(
            intent.id,
            {"payment_method": card, "off_session": True, "error_on_requires_action": True},
            {"idempotency_key": key or unique()},
        )

    async def charged(self) -> stripe.PaymentIntent:
        return await self.confirm(await self.open())

    async def refund(self, intent: stripe.PaymentIntent, key: str | None = None) -> stripe.Refund:
        return await self.refunds.create_async(
            {"payment_intent": intent.id}, {"idempotency_key": key or unique()}
        )


def unique() -> str:
    return os.urandom(8).hex()


@pytest.fixture
async def http() -> AsyncIterator[stripe.HTTPXClient]:
    client = stripe.HTTPXClient()
    yield client
    await client._client_async.aclose()


@pytest.fixture
def client(sandbox: Sandbox, http: stripe.HTTPXClient) -> Client:
    return Client(sandbox.url, http)


async def test_an_intent_goes_from_open_to_succeeded_and_keeps_its_metadata(
    client: Client,
) -> None:
    intent = await client.open()
    assert (intent.status, intent.amount_received) == ("requires_payment_method", 0)
    confirmed = await client.confirm(intent)
    assert (confirmed.status, confirmed.amount_received) == ("succeeded", AMOUNT)
    found = await client.intents.retrieve_async(intent.id)
    assert found.metadata is not None
    assert (found.metadata["saga_id"], found.metadata["step"]) == ("s-1", "pay")


async def test_an_intent_can_be_created_and_confirmed_in_one_request(client: Client) -> None:
    intent = await client.intents.create_async(
        {"amount": 5, "currency": "eur", "payment_method": "pm_card_mastercard", "confirm": True}
    )
    assert intent.status == "succeeded"


async def test_an_open_intent_can_be_cancelled_and_then_not_be_confirmed(client: Client) -> None:
    intent = await client.open()
    assert (await client.intents.cancel_async(intent.id)).status == "canceled"
    for attempt in (client.confirm(intent), client.intents.cancel_async(intent.id)):
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await attempt
        assert raised.value.code == "payment_intent_unexpected_state"


async def test_a_charge_can_be_refunded_once(client: Client) -> None:
    intent = await client.charged()
    refund = await client.refund(intent)
    assert (refund.status, refund.amount) == ("succeeded", AMOUNT)
    with pytest.raises(stripe.InvalidRequestError) as raised:
        await client.refund(intent)
    assert raised.value.code == "charge_already_refunded"
    assert (await client.refunds.retrieve_async(refund.id)).payment_intent == intent.id


async def test_an_uncharged_intent_cannot_be_refunded(client: Client) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await client.refund(await client.open())


async def test_lists_are_paged_newest_first(client: Client) -> None:
    intents = [await client.open() for _ in range(3)]
    first = await client.intents.list_async({"limit": 2})
    assert [intent.id for intent in first.data] == [intents[2].id, intents[1].id]
    assert first.has_more
    second = await client.intents.list_async({"limit": 1, "starting_after": intents[1].id})
    assert [intent.id for intent in second.data] == [intents[0].id]


async def test_refunds_are_listed_by_intent(client: Client) -> None:
    first, second = await client.charged(), await client.charged()
    refund = await client.refund(first)
    await client.refund(second)
    page = await client.refunds.list_async({"payment_intent": first.id})
    assert [listed.id for listed in page.data] == [refund.id]


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
async def test_a_declined_card_is_a_card_error_and_leaves_the_intent_open(
    client: Client, card: str, code: str, decline_code: str | None
) -> None:
    intent = await client.open()
    with pytest.raises(stripe.CardError) as raised:
        await client.confirm(intent, card)
    error = raised.value.error
    assert (raised.value.http_status, raised.value.code) == (402, code)
    assert error is not None
    assert error.decline_code == decline_code
    found = await client.intents.retrieve_async(intent.id)
    assert (found.status, found.payment_method) == ("requires_payment_method", None)
    assert found.last_payment_error is not None
    assert found.last_payment_error.code == code


async def test_a_card_may_ask_for_the_customer(client: Client) -> None:
    intent = await client.open()
    asked = await client.intents.confirm_async(
        intent.id, {"payment_method": "pm_card_authenticationRequired"}
    )
    assert asked.status == "requires_action"


@pytest.mark.parametrize(
    ("card", "end"),
    [
        ("pm_card_processing", "succeeded"),
        ("pm_card_processingThenDeclined", "requires_payment_method"),
    ],
)
async def test_a_processing_payment_settles_and_cannot_be_cancelled_before(
    client: Client, sandbox: Sandbox, card: str, end: str
) -> None:
    await sandbox.faults(settle_seconds=60)
    intent = await client.open()
    assert (await client.confirm(intent, card)).status == "processing"
    with pytest.raises(stripe.InvalidRequestError):
        await client.intents.cancel_async(intent.id)
    await sandbox.forward(60)
    assert (await client.intents.retrieve_async(intent.id)).status == end


async def test_the_first_answer_of_a_key_is_replayed(client: Client) -> None:
    key = unique()
    first, second = await client.open(key), await client.open(key)
    assert first.id == second.id
    assert second.last_response is not None
    assert second.last_response.headers["idempotent-replayed"] == "true"


async def test_a_decline_is_replayed_although_the_card_would_be_taken_now(client: Client) -> None:
    intent, key, card = await client.open(), unique(), "pm_card_chargeDeclinedOnce"
    for _ in ("first", "again"):
        with pytest.raises(stripe.CardError):
            await client.confirm(intent, card, key)
    assert (await client.confirm(intent, card)).status == "succeeded"


async def test_a_key_means_nothing_after_a_day(client: Client, sandbox: Sandbox) -> None:
    key = unique()
    first = await client.open(key)
    await sandbox.forward(DAY)
    assert (await client.open(key)).id != first.id


async def test_a_key_belongs_to_its_parameters_and_its_endpoint(client: Client) -> None:
    key = unique()
    intent = await client.open(key)
    for attempt in (client.open(key, amount=1), client.confirm(intent, key=key)):
        with pytest.raises(stripe.IdempotencyError) as raised:
            await attempt
        assert raised.value.http_status == 400


async def test_two_requests_with_one_key_at_once_conflict(client: Client, sandbox: Sandbox) -> None:
    await sandbox.faults(latency_ms=300)
    key = unique()
    first = asyncio.create_task(client.open(key))
    await sandbox.until_in_progress("create")
    with pytest.raises(stripe.APIError) as raised:
        await client.open(key)
    assert (raised.value.http_status, code_of(raised.value)) == (409, "idempotency_key_in_use")
    created = await first
    assert (await client.open(key)).id == created.id


def code_of(error: stripe.StripeError) -> str | None:
    return None if error.error is None else error.error.code


async def test_parameters_that_do_not_parse_leave_the_key_free(client: Client) -> None:
    key = unique()
    with pytest.raises(stripe.InvalidRequestError) as raised:
        await client.open(key, amount=0)
    assert (raised.value.param, raised.value.code) == ("amount", "parameter_invalid")
    assert (await client.open(key)).status == "requires_payment_method"


@pytest.mark.parametrize(
    ("parameters", "code", "param"),
    [
        ({"currency": "eur"}, "parameter_missing", "amount"),
        ({"amount": 1, "currency": "eur", "colour": "red"}, "parameter_unknown", "colour"),
        ({"amount": 1, "currency": "euro"}, "parameter_invalid", "currency"),
        ({"amount": 1, "currency": "eur", "payment_method": "pm_x"}, "resource_missing", None),
    ],
)
async def test_a_bad_request_says_which_parameter_is_wrong(
    sandbox: Sandbox, parameters: dict[str, object], code: str, param: str | None
) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    answer = await sandbox.admin.post("/v1/payment_intents", data=parameters, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (
        400,
        "invalid_request_error",
        code,
    )
    assert error["param"] == (param or "payment_method")


@pytest.mark.parametrize("kind", ["error_before", "error_after"])
async def test_a_500_is_replayed_whether_it_had_an_effect_or_not(
    client: Client, sandbox: Sandbox, kind: str
) -> None:
    intent, key = await client.open(), unique()
    await sandbox.faults({"kind": kind, "operation": "confirm"})
    for _ in ("first", "again"):
        with pytest.raises(stripe.APIError) as raised:
            await client.confirm(intent, key=key)
        assert raised.value.http_status == 500
    found = await client.intents.retrieve_async(intent.id)
    assert found.amount_received == (AMOUNT if kind == "error_after" else 0)


async def test_a_429_is_not_remembered(client: Client, sandbox: Sandbox) -> None:
    intent, key = await client.open(), unique()
    await sandbox.faults({"kind": "rate_limit", "operation": "confirm"})
    with pytest.raises(stripe.RateLimitError):
        await client.confirm(intent, key=key)
    assert (await client.confirm(intent, key=key)).status == "succeeded"


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
async def test_a_dropped_connection_may_hide_an_effect(
    client: Client, sandbox: Sandbox, kind: str
) -> None:
    intent, key = await client.open(), unique()
    await sandbox.faults({"kind": kind, "operation": "confirm"})
    with pytest.raises(stripe.APIConnectionError):
        await client.confirm(intent, key=key)
    found = await client.intents.retrieve_async(intent.id)
    assert found.amount_received == (AMOUNT if kind == "drop_after" else 0)
    assert (await client.confirm(intent, key=key)).amount_received == AMOUNT


async def test_a_failed_refund_moves_no_money_and_can_be_made_again(
    client: Client, sandbox: Sandbox
) -> None:
    intent = await client.charged()
    await sandbox.faults({"kind": "refund_fails"})
    assert (await client.refund(intent)).status == "failed"
    assert (await client.refund(intent)).status == "succeeded"


async def test_only_test_keys_are_taken(sandbox: Sandbox, http: stripe.HTTPXClient) -> None:
    with pytest.raises(stripe.AuthenticationError):
        await Client(sandbox.url, http, key="sk_live_never").open()


async def test_what_it_does_not_know_is_missing(client: Client, sandbox: Sandbox) -> None:
    for attempt in (client.intents.retrieve_async("pi_no"), client.refunds.retrieve_async("re_no")):
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await attempt
        assert (raised.value.http_status, raised.value.code) == (404, "resource_missing")
    assert (await sandbox.admin.get("/v1/customers")).json()["error"]["code"] == "url_invalid"


async def test_bad_switches_are_refused_and_change_nothing(sandbox: Sandbox) -> None:
    await sandbox.faults(latency_ms=1)
    answer = await sandbox.admin.put("/_sandbox/switches", json={"faults": [{"kind": "magic"}]})
    assert answer.status_code == 400
    assert (await sandbox.admin.get("/_sandbox/switches")).json()["latency_ms"] == 1


async def test_what_it_has_acknowledged_survives_kill_9(
    tmp_path: Path, http: stripe.HTTPXClient
) -> None:
    port = free_port()
    url = f"http://{HOST}:{port}"
    ledger = tmp_path / "ledger.sqlite3"
    process = service(
        "sandbox",
        "payment_svc.sandbox",
        folder=tmp_path,
        ready=serves_http(f"{url}/_sandbox/health"),
        env={"SANDBOX_PORT": str(port), "SANDBOX_LEDGER": str(ledger)},
    )
    async with process:
        client = Client(url, http)
        key = unique()
        intent = await client.open()
        await client.confirm(intent, key=key)
        await process.kill()
        await process.start()
        assert (await client.confirm(intent, key=key)).amount_received == AMOUNT
        async with httpx.AsyncClient(base_url=url) as admin:
            (line,) = (await admin.get("/_sandbox/ledger")).json()["payments"]
    assert (line["captured"], line["refunded"]) == (AMOUNT, 0)
