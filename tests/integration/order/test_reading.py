from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest
from uuid_utils import uuid7

from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2
from tests.integration.order.coordinator import StandInCoordinator
from tests.integration.order.shop import Shop
from tests.refusals import refused
from tests.unit.order.requests import create_order, euros, place_order

PENDING = order_pb2.ORDER_STATE_PENDING
CANCELLED = order_pb2.ORDER_STATE_CANCELLED


async def place(shop: Shop, number: int = 1, customer_id: str = "ada") -> order_pb2.Order:
    placed = await shop.orders.PlaceOrder(
        place_order(request_id=f"request-{number}", customer_id=customer_id)
    )
    return order_pb2.Order(order_id=placed.order_id, saga_id=placed.saga_id)


async def create_and_cancel(shop: Shop, order: order_pb2.Order) -> None:
    """What the saga's steps do when the card is declined."""
    metadata = (("saga-id", order.saga_id), ("saga-step", "create_order"))
    request = create_order(order.order_id)
    await shop.create_order.Do(request, metadata=metadata)
    undo = order_pb2.CreateOrderCompensation(request=request)
    await shop.create_order.Compensate(undo, metadata=metadata)


async def test_an_order_is_pending_from_the_moment_it_was_placed(shop: Shop) -> None:
    placed = await place(shop)
    order = await shop.order(placed.order_id)
    assert (order.state, order.saga_id, order.customer_id) == (PENDING, placed.saga_id, "ada")
    assert order.total == euros(21)
    assert order.failure_reason == ""


async def test_an_order_is_pending_also_while_its_saga_could_not_be_started(
    shop: Shop, coordinator: StandInCoordinator
) -> None:
    await coordinator.down()
    async with refused():
        await place(shop)
    (order,) = (await shop.orders.ListOrders(order_pb2.ListOrdersRequest())).orders
    assert await shop.order(order.order_id) == order
    assert order.state == PENDING


async def test_a_cancelled_order_tells_why(shop: Shop) -> None:
    placed = await place(shop)
    shop.coordinator.fail(placed.saga_id, "CARD_DECLINED")
    await create_and_cancel(shop, placed)
    order = await shop.order(placed.order_id)
    assert (order.state, order.failure_reason) == (CANCELLED, "CARD_DECLINED")


async def test_once_known_the_reason_needs_no_coordinator(
    shop: Shop, coordinator: StandInCoordinator
) -> None:
    placed = await place(shop)
    coordinator.fail(placed.saga_id, "CARD_DECLINED")
    await create_and_cancel(shop, placed)
    await shop.order(placed.order_id)
    await coordinator.down()
    assert (await shop.order(placed.order_id)).failure_reason == "CARD_DECLINED"


async def test_a_cancelled_order_is_answered_without_its_reason_while_the_coordinator_is_away(
    shop: Shop, coordinator: StandInCoordinator
) -> None:
    placed = await place(shop)
    coordinator.fail(placed.saga_id, "CARD_DECLINED")
    await create_and_cancel(shop, placed)
    await coordinator.down()
    order = await shop.order(placed.order_id)
    assert (order.state, order.failure_reason) == (CANCELLED, "")


async def test_an_order_made_by_hand_is_answered_though_the_coordinator_knows_no_saga(
    shop: Shop,
) -> None:
    by_hand = order_pb2.Order(order_id=str(uuid7()), saga_id="demo-1")
    await create_and_cancel(shop, by_hand)
    assert (await shop.order(by_hand.order_id)).state == CANCELLED


async def test_an_order_that_its_saga_never_created_reads_cancelled_once_the_saga_has_ended(
    shop: Shop,
) -> None:
    placed = await place(shop)
    shop.coordinator.fail(placed.saga_id, "CANCELLED_BY_CLIENT")
    order = await shop.order(placed.order_id)
    assert (order.state, order.failure_reason) == (CANCELLED, "CANCELLED_BY_CLIENT")
    assert order.total == euros(21)


async def test_an_order_stays_pending_while_its_saga_still_compensates(shop: Shop) -> None:
    placed = await place(shop)
    shop.coordinator.fail(placed.saga_id, "CARD_DECLINED", saga_pb2.SAGA_STATE_COMPENSATING)
    assert (await shop.order(placed.order_id)).state == PENDING


async def test_an_unknown_order_is_not_found(shop: Shop) -> None:
    order_id = str(uuid7())
    async with refused() as refusal:
        await shop.order(order_id)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
    assert refusal.metadata["name"] == order_id


async def test_a_malformed_order_id_is_refused(shop: Shop) -> None:
    async with refused() as refusal:
        await shop.order("order-1")
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == ["order_id"]


async def pages(shop: Shop, page_size: int = 0, customer_id: str = "") -> Sequence[Sequence[str]]:
    """The order ids of every page, from the first to the last."""
    request = order_pb2.ListOrdersRequest(page_size=page_size, customer_id=customer_id)
    found: list[Sequence[str]] = []
    while not found or request.page_token:
        answer = await shop.orders.ListOrders(request)
        found.append([order.order_id for order in answer.orders])
        request.page_token = answer.next_page_token
    return found


async def test_orders_are_listed_newest_first_promised_and_created_alike(shop: Shop) -> None:
    placed = [await place(shop, number) for number in range(5)]
    await create_and_cancel(shop, placed[1])
    await create_and_cancel(shop, placed[3])
    newest_first = [order.order_id for order in reversed(placed)]
    assert await pages(shop) == [newest_first]
    assert await pages(shop, page_size=2) == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert await pages(shop, page_size=5) == [newest_first]


async def test_orders_placed_meanwhile_do_not_shift_the_next_page(shop: Shop) -> None:
    placed = [await place(shop, number) for number in range(3)]
    first = await shop.orders.ListOrders(order_pb2.ListOrdersRequest(page_size=2))
    await place(shop, 3)
    await create_and_cancel(shop, placed[0])
    second = await shop.orders.ListOrders(
        order_pb2.ListOrdersRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [order.order_id for order in second.orders] == [placed[0].order_id]


async def test_orders_of_one_customer_are_listed_alone(shop: Shop) -> None:
    await place(shop, 1, "ada")
    graces = await place(shop, 2, "grace")
    await create_and_cancel(shop, await place(shop, 3, "ada"))
    assert await pages(shop, customer_id="grace") == [[graces.order_id]]
    assert await pages(shop, customer_id="nobody") == [[]]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (order_pb2.ListOrdersRequest(page_token="next"), "page_token"),
        (order_pb2.ListOrdersRequest(page_size=-1), "page_size"),
        (order_pb2.ListOrdersRequest(customer_id="\x00"), "customer_id"),
    ],
)
async def test_a_wrong_page_is_refused(
    shop: Shop, wrong: order_pb2.ListOrdersRequest, field: str
) -> None:
    async with refused() as refusal:
        await shop.orders.ListOrders(wrong)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.fields) == [field]
