from __future__ import annotations

import asyncio

import grpc
import pytest

from mesh.errors import FieldViolation, InvalidRequest, MeshError, NotFound, Retry
from protos.order.v1 import order_pb2
from tests.integration.order.coordinator import StandInCoordinator
from tests.integration.order.shop import Shop, open_shop
from tests.refusals import refused
from tests.unit.order.requests import euros, item, place_order

NOTHING = {"placement": 0, "orders": 0, "order_item": 0}
ONE_PROMISE = NOTHING | {"placement": 1}


async def test_an_order_is_promised_and_its_saga_started(shop: Shop) -> None:
    wanted = place_order()
    placed = await shop.orders.PlaceOrder(wanted)
    saga = shop.coordinator.sagas[placed.saga_id]
    saga_input = order_pb2.PlaceOrderInput()
    assert saga.definition == "place-order"
    assert saga.input.Unpack(saga_input)
    assert saga_input == order_pb2.PlaceOrderInput(
        order_id=placed.order_id,
        customer_id=wanted.customer_id,
        items=wanted.items,
        payment_method=wanted.payment_method,
    )
    assert await shop.rows() == ONE_PROMISE


async def test_the_same_request_again_gets_the_same_order(shop: Shop) -> None:
    first = await shop.orders.PlaceOrder(place_order())
    assert await shop.orders.PlaceOrder(place_order()) == first
    assert shop.coordinator.starts == 1
    assert await shop.rows() == ONE_PROMISE


async def test_parallel_duplicates_get_one_order_and_one_saga(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.orders.PlaceOrder(place_order()) for _ in range(20)))
    assert answers == [answers[0]] * 20
    assert list(shop.coordinator.sagas) == [answers[0].saga_id]
    assert await shop.rows() == ONE_PROMISE


async def test_a_request_id_is_not_used_for_another_order(shop: Shop) -> None:
    await shop.orders.PlaceOrder(place_order())
    async with refused() as refusal:
        await shop.orders.PlaceOrder(place_order(customer_id="grace"))
    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"
    assert refusal.metadata == {"request_id": "request-1"}
    assert refusal.domain == "order.v1"
    assert await shop.rows() == ONE_PROMISE


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (place_order(request_id=""), "request_id"),
        (place_order(request_id="x" * 65), "request_id"),
        (place_order(customer_id=""), "customer_id"),
        (place_order(payment_method="4242424242424242"), "payment_method"),
        (place_order(*(item(f"cup-{n}") for n in range(1_001))), "items"),
        (place_order(item(), item()), "items[1].product_id"),
        (place_order(item(quantity=0)), "items[0].quantity"),
        (place_order(item(quantity=-1)), "items[0].quantity"),
        (place_order(item(unit_price=euros(-1))), "items[0].unit_price"),
        (place_order(item("\x00")), "items[0].product_id"),
    ],
)
async def test_a_bad_request_changes_nothing(
    shop: Shop, wrong: order_pb2.PlaceOrderRequest, field: str
) -> None:
    async with refused() as refusal:
        await shop.orders.PlaceOrder(wrong)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == [field]
    assert await shop.rows() == NOTHING
    assert shop.coordinator.starts == 0


async def test_a_thousand_mistakes_still_fit_an_answer(shop: Shop) -> None:
    wrong = place_order(*(item(f"cup-{n}", 0) for n in range(1_000)))
    async with refused() as refusal:
        await shop.orders.PlaceOrder(wrong)
    assert refusal.reason == "INVALID_REQUEST"
    assert list(refusal.fields[:2]) == ["items[0].quantity", "items[1].quantity"]


async def test_a_message_over_4_mib_changes_nothing(shop: Shop) -> None:
    async with refused() as refusal:
        await shop.orders.PlaceOrder(place_order(customer_id="x" * (5 << 20)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    assert await shop.rows() == NOTHING


async def test_no_card_token_is_echoed(shop: Shop) -> None:
    async with refused() as refusal:
        await shop.orders.PlaceOrder(place_order(payment_method="pm_card-4242"))
    assert "4242" not in refusal.message + str(refusal.metadata)


async def test_while_the_coordinator_is_away_the_promise_stays(
    shop: Shop, coordinator: StandInCoordinator
) -> None:
    await coordinator.down()
    async with refused() as refusal:
        await shop.orders.PlaceOrder(place_order())
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "COORDINATOR_UNAVAILABLE"
    assert refusal.retry_after_ms is not None
    assert await shop.rows() == ONE_PROMISE


async def test_how_long_an_overloaded_coordinator_asks_to_wait_is_passed_on(shop: Shop) -> None:
    shop.coordinator.refusal = Retry("DRAINING", "later", retry_after_ms=7_000)
    async with refused() as refusal:
        await shop.orders.PlaceOrder(place_order())
    assert refusal.reason == "COORDINATOR_UNAVAILABLE"
    assert refusal.retry_after_ms == 7_000


async def test_after_a_crash_before_start_the_same_request_goes_on_with_its_promise(
    order_dsn: str, coordinator: StandInCoordinator
) -> None:
    coordinator.refusal = Retry("DROPPED", "StartSaga never got there")
    async with open_shop(order_dsn, coordinator) as before, refused():
        await before.orders.PlaceOrder(place_order())
    coordinator.refusal = None
    async with open_shop(order_dsn, coordinator) as after:
        placed = await after.orders.PlaceOrder(place_order())
        assert await after.rows() == ONE_PROMISE
    assert list(coordinator.sagas) == [placed.saga_id]


async def test_a_lost_answer_starts_no_second_saga(shop: Shop) -> None:
    shop.coordinator.lose_answers = True
    async with refused():
        await shop.orders.PlaceOrder(place_order())
    shop.coordinator.lose_answers = False
    placed = await shop.orders.PlaceOrder(place_order())
    assert shop.coordinator.starts == 2
    assert list(shop.coordinator.sagas) == [placed.saga_id]


@pytest.mark.parametrize(
    ("refusal", "code", "reason"),
    [
        (
            NotFound(
                "DEFINITION_NOT_FOUND", "none", resource_type="Definition", name="place-order"
            ),
            grpc.StatusCode.UNAVAILABLE,
            "DEFINITION_NOT_FOUND",
        ),
        (
            InvalidRequest([FieldViolation("input", "another type")]),
            grpc.StatusCode.INTERNAL,
            "COORDINATOR_REFUSED",
        ),
    ],
)
async def test_a_coordinator_that_is_not_set_up_is_reported_and_the_promise_stays(
    shop: Shop, refusal: MeshError, code: grpc.StatusCode, reason: str
) -> None:
    shop.coordinator.refusal = refusal
    async with refused() as answer:
        await shop.orders.PlaceOrder(place_order())
    assert (answer.code, answer.reason) == (code, reason)
    shop.coordinator.refusal = None
    await shop.orders.PlaceOrder(place_order())
    assert await shop.rows() == ONE_PROMISE
