"""Bad input gets a clear google.rpc.Status, names what is wrong, and changes nothing."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.type import money_pb2
from uuid_utils import uuid7

from local.mesh import Mesh
from local.shop import Shop, order_request
from protos.inventory.v1 import inventory_pb2
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2
from tests.chaos.stores import rows
from tests.refusals import refused

CUSTOMER = "mallory"


def item(product: str, quantity: int = 1, units: int = 5, currency: str = "EUR") -> object:
    price = money_pb2.Money(currency_code=currency, units=units)
    return order_pb2.OrderItem(product_id=product, quantity=quantity, unit_price=price)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"items": []}, ["items"]),
        ({"items": [item("mug"), item("mug")]}, ["items[1].product_id"]),
        ({"items": [item("mug", 0)]}, ["items[0].quantity"]),
        ({"items": [item("mug", -1)]}, ["items[0].quantity"]),
        ({"items": [item(f"p{n}") for n in range(1001)]}, ["items"]),
        ({"items": [item("mug", units=-1)]}, ["items[0].unit_price"]),
        ({"items": [item("mug", currency="euros")]}, ["items[0].unit_price"]),
        (
            {"items": [item("mug"), item("coffee", currency="USD")]},
            ["items[1].unit_price.currency_code"],
        ),
        ({"request_id": "not an id"}, ["request_id"]),
        ({"request_id": ""}, ["request_id"]),
        ({"payment_method": "4242424242424242"}, ["payment_method"]),
        (
            {"items": [item("", 0)], "request_id": "", "payment_method": ""},
            ["items[0].product_id", "items[0].quantity", "payment_method", "request_id"],
        ),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_and_nothing_is_placed(
    change: dict[str, Any], fields: list[str], shop: Shop
) -> None:
    good: dict[str, Any] = {
        "request_id": uuid7().hex,
        "customer_id": CUSTOMER,
        "items": [item("mug")],
        "payment_method": "pm_card_visa",
    }
    request = order_pb2.PlaceOrderRequest(**{**good, **change})
    async with refused() as answer:
        await shop.orders.PlaceOrder(request)
    assert (answer.code, answer.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "order.v1")
    assert answer.reason
    assert sorted(answer.fields) == fields
    placed = await shop.orders.ListOrders(order_pb2.ListOrdersRequest(customer_id=CUSTOMER))
    assert not placed.orders


async def test_a_request_over_four_mebibytes_is_refused(shop: Shop) -> None:
    request = order_request({"mug": 1}, "pm_card_visa")
    request.customer_id = "m" * (4 << 20)
    async with refused() as answer:
        await shop.orders.PlaceOrder(request)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])
    assert answer.reason == "REQUEST_TOO_LARGE"


async def test_a_request_id_that_was_used_for_something_else_is_refused(shop: Shop) -> None:
    request = order_request({"mug": 1}, "pm_card_visa")
    await shop.orders.PlaceOrder(request)
    request.items[0].quantity = 2
    async with refused() as answer:
        await shop.orders.PlaceOrder(request)
    assert answer.code is grpc.StatusCode.ALREADY_EXISTS


async def test_an_unknown_product_cancels_the_order_and_says_so(shop: Shop) -> None:
    request = order_request({"mug": 1}, "pm_card_visa")
    request.items[0].product_id = "unicorn"
    placed = await shop.orders.PlaceOrder(request)
    assert [event async for event in shop.watch(placed.saga_id)][-1].state == (
        saga_pb2.SAGA_STATE_COMPENSATED
    )
    order = await shop.order(placed.order_id)
    assert order.state == order_pb2.ORDER_STATE_CANCELLED
    assert order.failure_reason == "PRODUCT_NOT_FOUND"


async def test_what_does_not_exist_is_not_found(shop: Shop) -> None:
    nobody = str(uuid7())
    async with refused() as order:
        await shop.orders.GetOrder(order_pb2.GetOrderRequest(order_id=nobody))
    assert (order.code, order.reason) == (grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND")
    async with refused() as saga:
        await shop.sagas.GetSaga(saga_pb2.GetSagaRequest(saga_id=nobody))
    assert (saga.code, saga.reason) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")
    request = inventory_pb2.GetStockRequest(product_id="unicorn")
    async with refused() as stock:
        await shop.inventory.GetStock(request)
    assert stock.code is grpc.StatusCode.NOT_FOUND


async def test_a_malformed_id_is_refused(shop: Shop) -> None:
    async with refused() as order:
        await shop.orders.GetOrder(order_pb2.GetOrderRequest(order_id="7"))
    assert (order.code, order.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["order_id"])
    async with refused() as saga:
        await shop.sagas.GetSaga(saga_pb2.GetSagaRequest(saga_id="no id"))
    assert (saga.code, saga.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["saga_id"])


async def test_an_unknown_page_token_is_refused(shop: Shop) -> None:
    calls = [
        shop.orders.ListOrders(order_pb2.ListOrdersRequest(page_token="x")),
        shop.sagas.ListSagas(saga_pb2.ListSagasRequest(page_token="x")),
        shop.inventory.ListStock(inventory_pb2.ListStockRequest(page_token="\0")),
    ]
    for call in calls:
        async with refused() as answer:
            await call
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        assert answer.fields == ["page_token"]


async def test_negative_stock_is_refused(shop: Shop) -> None:
    request = inventory_pb2.SetStockRequest(product_id="mug", available=-1)
    async with refused() as answer:
        await shop.inventory.SetStock(request)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["available"])


def start(saga_id: str, definition: str, saga_input: any_pb2.Any) -> saga_pb2.StartSagaRequest:
    return saga_pb2.StartSagaRequest(saga_id=saga_id, definition=definition, input=saga_input)


def packed(type_name: str, value: bytes = b"") -> any_pb2.Any:
    return any_pb2.Any(type_url=f"type.googleapis.com/{type_name}", value=value)


@pytest.mark.parametrize(
    ("definition", "saga_input", "code", "reason"),
    [
        ("no-such", packed("order.v1.PlaceOrderInput"), "NOT_FOUND", "DEFINITION_NOT_FOUND"),
        ("place-order", packed("order.v1.GetOrderRequest"), "INVALID_ARGUMENT", ""),
        ("place-order", packed("no.such.Type"), "INVALID_ARGUMENT", ""),
        ("place-order", packed("order.v1.PlaceOrderInput", b"\xff\xff"), "INVALID_ARGUMENT", ""),
        ("place-order", any_pb2.Any(), "INVALID_ARGUMENT", ""),
    ],
)
async def test_a_saga_with_a_wrong_input_is_not_started(
    definition: str, saga_input: any_pb2.Any, code: str, reason: str, shop: Shop
) -> None:
    saga_id = f"bad-{uuid7().hex}"
    async with refused() as answer:
        await shop.sagas.StartSaga(start(saga_id, definition, saga_input))
    assert (answer.code.name, answer.domain) == (code, "saga.v1")
    assert answer.reason
    if reason:
        assert answer.reason == reason
    else:
        assert answer.fields == ["input"]
    async with refused() as missing:
        await shop.sagas.GetSaga(saga_pb2.GetSagaRequest(saga_id=saga_id))
    assert missing.code is grpc.StatusCode.NOT_FOUND


async def test_a_saga_with_a_malformed_id_is_not_started(shop: Shop) -> None:
    request = start("no id", "place-order", packed("order.v1.PlaceOrderInput"))
    async with refused() as answer:
        await shop.sagas.StartSaga(request)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["saga_id"])


WRONG = """
name: wrong
input: order.v1.PlaceOrderInput
steps:
- name: no_such_service
  service: order.v1.Nothing
  request: 'order.v1.GetOrderRequest{}'
- name: no_step
  service: order.v1.OrderService
  request: 'order.v1.GetOrderRequest{}'
- name: wrong_type
  service: inventory.v1.ReserveStock
  request: 'order.v1.GetOrderRequest{}'
- name: unknown_field
  service: inventory.v1.ReserveStock
  request: 'inventory.v1.ReserveStockRequest{order_id: input.order_number}'
"""


async def test_a_wrong_definition_is_refused_with_all_its_errors_at_once(shop: Shop) -> None:
    validate = saga_pb2.ValidateDefinitionRequest(source=WRONG)
    errors = (await shop.definitions.ValidateDefinition(validate)).errors
    assert {error.path.split(".")[0] for error in errors} == {f"steps[{n}]" for n in range(4)}
    assert all(error.line and error.column and error.reason and error.message for error in errors)
    register = saga_pb2.RegisterDefinitionRequest(source=WRONG)
    async with refused() as answer:
        await shop.definitions.RegisterDefinition(register)
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(answer.fields) == len(errors)
    unknown = saga_pb2.GetDefinitionRequest(name="wrong")
    async with refused() as missing:
        await shop.definitions.GetDefinition(unknown)
    assert missing.reason == "DEFINITION_NOT_FOUND"


async def in_journal(mesh: Mesh, saga_id: str) -> tuple[int, int]:
    """How many events and verbs the coordinator's database has of a saga."""
    events = "SELECT count(*) FROM saga.saga_event WHERE saga_id = %s"
    verbs = "SELECT count(*) FROM saga.saga_inbox WHERE saga_id = %s"
    dsn = mesh.dsn("coordinator")
    ((event_count,), (verb_count,)) = [
        tuple((await rows(dsn, query, saga_id))[0].values()) for query in (events, verbs)
    ]
    return event_count, verb_count


ASKED: dict[str, Any] = {"reason": "told to", "actor": "ann"}


@pytest.mark.parametrize(
    ("rpc", "fields", "answered"),
    [
        ("CancelSaga", ASKED, "FAILED_PRECONDITION VERB_NOT_LEGAL"),
        ("RetrySaga", ASKED, "FAILED_PRECONDITION VERB_NOT_LEGAL"),
        ("AbandonSaga", ASKED, "FAILED_PRECONDITION VERB_NOT_LEGAL"),
        ("SkipStep", ASKED | {"step": "create_order"}, "FAILED_PRECONDITION VERB_NOT_LEGAL"),
        ("CancelSaga", ASKED | {"revision": 1}, "FAILED_PRECONDITION SAGA_CHANGED"),
        ("SkipStep", ASKED | {"step": "dance"}, "INVALID_ARGUMENT STEP_NOT_FOUND"),
        ("RetrySaga", {"actor": "ann"}, "INVALID_ARGUMENT INVALID_REQUEST"),
        ("RetrySaga", ASKED | {"reason": "r" * 1_000_000}, "INVALID_ARGUMENT INVALID_REQUEST"),
        ("RetrySaga", ASKED | {"reason": "r" * (5 << 20)}, "INVALID_ARGUMENT REQUEST_TOO_LARGE"),
    ],
)
async def test_a_verb_on_a_finished_saga_or_without_sense_leaves_no_trace(
    rpc: str, fields: dict[str, Any], answered: str, mesh: Mesh, shop: Shop
) -> None:
    placed = await shop.place({"grinder": 1}, "pm_card_visa")
    assert [event async for event in shop.watch(placed.saga_id)]
    before = await in_journal(mesh, placed.saga_id)
    request = getattr(saga_pb2, f"{rpc}Request")(saga_id=placed.saga_id, **fields)
    async with refused() as answer:
        await getattr(shop.sagas, rpc)(request)
    assert f"{answer.code.name} {answer.reason}" == answered
    assert answer.domain == "saga.v1"
    assert await in_journal(mesh, placed.saga_id) == before


@pytest.mark.parametrize(
    ("saga_filter", "code", "reason"),
    [
        ({"keys": {"customer_id": "nobody"}}, "NOT_FOUND", "NO_SAGA_MATCHES"),
        ({"definition": "no-such"}, "NOT_FOUND", "NO_SAGA_MATCHES"),
        ({}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ],
)
async def test_a_batch_that_finds_nothing_or_has_no_condition_is_refused(
    saga_filter: dict[str, Any], code: str, reason: str, shop: Shop
) -> None:
    request = saga_pb2.SteerSagasRequest(verb="SAGA_VERB_RETRY", filter=saga_filter, **ASKED)
    async with refused() as answer:
        await shop.sagas.SteerSagas(request).read()
    assert (answer.code.name, answer.reason, answer.domain) == (code, reason, "saga.v1")
