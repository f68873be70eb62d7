from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import coordinator.definitions
from coordinator.core.model import COMPENSATION_RETRY, RequestNotBuildable
from coordinator.definitions.base import CompiledDefinition, InputRefused
from coordinator.definitions.compiler import Compilation, compile_definition
from protos.fulfillment.v1 import fulfillment_pb2
from protos.inventory.v1 import inventory_pb2
from protos.order.v1 import order_pb2
from protos.payment.v1 import payment_pb2
from protos.saga.v1 import saga_pb2
from tests.unit.definitions.contracts import shop

SOURCE = (Path(next(iter(coordinator.definitions.__path__))) / "place-order.yaml").read_text()
INPUT_URL = "type.googleapis.com/order.v1.PlaceOrderInput"


@pytest.fixture(scope="module")
def compilation() -> Compilation:
    return compile_definition(SOURCE, shop())


@pytest.fixture
def place_order(compilation: Compilation) -> CompiledDefinition:
    return compilation.version


def order_input() -> order_pb2.PlaceOrderInput:
    order = order_pb2.PlaceOrderInput(
        order_id="o-1", customer_id="c-1", payment_method="pm_card_visa"
    )
    for number in (1, 2):
        item = order.items.add(product_id=f"p-{number}", quantity=number)
        item.unit_price.currency_code, item.unit_price.units = "EUR", 5
    return order


def responses() -> dict[str, bytes]:
    created = order_pb2.CreateOrderResponse()
    created.total.currency_code, created.total.units = "EUR", 15
    return {
        "create_order": created.SerializeToString(),
        "reserve_stock": b"",
        "charge_payment": b"",
        "request_shipment": b"",
    }


def test_the_shipped_definition_fits_the_shipped_contracts(compilation: Compilation) -> None:
    assert compilation.warnings == ()
    assert [step.service for step in compilation.version.definition.steps] == [
        "order.v1.CreateOrder",
        "inventory.v1.ReserveStock",
        "payment.v1.ChargePayment",
        "fulfillment.v1.RequestShipment",
        "order.v1.ConfirmOrder",
    ]


def test_every_request_is_built_from_the_input_and_earlier_responses(
    place_order: CompiledDefinition,
) -> None:
    order = order_input()
    built = {
        step.name: step.build(order.SerializeToString(), responses())
        for step in place_order.definition.steps
    }
    expected = {
        "create_order": order_pb2.CreateOrderRequest(
            order_id="o-1", customer_id="c-1", items=order.items
        ),
        "reserve_stock": inventory_pb2.ReserveStockRequest(
            order_id="o-1",
            items=[
                inventory_pb2.StockItem(product_id="p-1", quantity=1),
                inventory_pb2.StockItem(product_id="p-2", quantity=2),
            ],
        ),
        "charge_payment": payment_pb2.ChargePaymentRequest(
            order_id="o-1",
            amount=order_pb2.CreateOrderResponse.FromString(responses()["create_order"]).total,
            payment_method="pm_card_visa",
        ),
        "request_shipment": fulfillment_pb2.RequestShipmentRequest(
            order_id="o-1",
            items=[
                fulfillment_pb2.ShipmentItem(product_id="p-1", quantity=1),
                fulfillment_pb2.ShipmentItem(product_id="p-2", quantity=2),
            ],
        ),
        "confirm_order": order_pb2.ConfirmOrderRequest(order_id="o-1"),
    }
    assert built == {
        name: message.SerializeToString(deterministic=True) for name, message in expected.items()
    }


def test_its_policy_is_the_one_of_the_reference_articles(place_order: CompiledDefinition) -> None:
    never_again = {
        "reserve_stock": {"INVENTORY_PERMANENTLY_UNAVAILABLE"},
        "charge_payment": {"CARD_DECLINED"},
    }
    for step in place_order.definition.steps:
        assert step.timeout_ms == 30_000
        assert (step.retry.max_attempts, step.retry.backoff_coefficient) == (5, 2.0)
        assert (step.retry.initial_interval_ms, step.retry.max_interval_ms) == (1_000, 30_000)
        assert step.retry.non_retryable_reasons == never_again.get(step.name, set())
        assert step.compensation_retry == COMPENSATION_RETRY
    assert place_order.definition.deadline_ms == 900_000


def test_keys_are_taken_from_the_input(place_order: CompiledDefinition) -> None:
    keys = place_order.keys_of(order_input().SerializeToString())
    assert keys == {"order_id": "o-1", "customer_id": "c-1"}


def test_the_message_says_what_the_yaml_says(place_order: CompiledDefinition) -> None:
    message = saga_pb2.Definition.FromString(place_order.message)
    assert (message.name, message.input) == ("place-order", place_order.input_type)
    assert message.steps[2].retry.max_interval.seconds == 30


def test_only_the_descriptors_that_it_needs_are_kept(place_order: CompiledDefinition) -> None:
    files = FileDescriptorSet.FromString(place_order.descriptors).file
    assert {file.package for file in files} == {
        "order.v1",
        "inventory.v1",
        "payment.v1",
        "fulfillment.v1",
        "google.type",
        "google.protobuf",
    }


def test_an_input_is_made_canonical(place_order: CompiledDefinition) -> None:
    canonical = order_input().SerializeToString(deterministic=True)
    twice = canonical + order_pb2.PlaceOrderInput(customer_id="c-1").SerializeToString()
    assert place_order.check_input(INPUT_URL, twice) == canonical


@pytest.mark.parametrize(
    ("type_url", "value", "reason"),
    [
        ("type.googleapis.com/order.v1.Order", b"", "INPUT_TYPE_MISMATCH"),
        ("", b"", "INPUT_TYPE_MISMATCH"),
        (INPUT_URL, b"\xff\xff", "INPUT_MALFORMED"),
    ],
)
def test_an_input_of_another_type_or_shape_is_refused(
    place_order: CompiledDefinition, type_url: str, value: bytes, reason: str
) -> None:
    with pytest.raises(InputRefused) as refused:
        place_order.check_input(type_url, value)
    assert refused.value.reason == reason


def test_a_response_that_does_not_parse_builds_no_request(place_order: CompiledDefinition) -> None:
    charge = place_order.definition.steps[2]
    with pytest.raises(RequestNotBuildable, match=r"create_order is no order\.v1\."):
        charge.build(order_input().SerializeToString(), responses() | {"create_order": b"\xff"})


def test_a_response_that_is_missing_builds_no_request(place_order: CompiledDefinition) -> None:
    charge = place_order.definition.steps[2]
    with pytest.raises(RequestNotBuildable, match="create_order has no response"):
        charge.build(order_input().SerializeToString(), {})
