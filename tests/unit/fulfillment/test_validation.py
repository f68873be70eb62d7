from __future__ import annotations

from collections.abc import Iterator

import pytest

from fulfillment_svc.validation import (
    confirm_shipment_violations,
    get_shipment_violations,
    request_shipment_violations,
)
from mesh.errors import FieldViolation
from protos.fulfillment.v1 import fulfillment_pb2

SHIPMENT_ID = "01a1fe54-1e27-7628-81e2-958cc6843953"


def fields(violations: Iterator[FieldViolation]) -> list[str]:
    return [violation.field for violation in violations]


def request_shipment(
    *items: fulfillment_pb2.ShipmentItem, order_id: str = "order-1"
) -> fulfillment_pb2.RequestShipmentRequest:
    return fulfillment_pb2.RequestShipmentRequest(order_id=order_id, items=items)


def item(product_id: str = "cup", quantity: int = 1) -> fulfillment_pb2.ShipmentItem:
    return fulfillment_pb2.ShipmentItem(product_id=product_id, quantity=quantity)


def test_a_right_request_has_no_violations() -> None:
    assert fields(request_shipment_violations(request_shipment(item(), item("plate", 3)))) == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (request_shipment(), "items"),
        (request_shipment(*[item()] * 1_001), "items"),
        (request_shipment(item(), order_id=""), "order_id"),
        (request_shipment(item("")), "items[0].product_id"),
        (request_shipment(item(), item("x" * 129)), "items[1].product_id"),
        (request_shipment(item(quantity=0)), "items[0].quantity"),
        (request_shipment(item(quantity=1_000_001)), "items[0].quantity"),
    ],
)
def test_a_shipment_that_makes_no_sense_is_found(
    request_: fulfillment_pb2.RequestShipmentRequest, field: str
) -> None:
    assert fields(request_shipment_violations(request_)) == [field]


@pytest.mark.parametrize(
    ("shipment_id", "order_id", "field"),
    [
        ("", "", "shipment_id"),
        (SHIPMENT_ID, "order-1", "shipment_id"),
        ("shipment-1", "", "shipment_id"),
        ("", "a\x00", "order_id"),
    ],
)
def test_a_shipment_is_looked_up_by_exactly_one_id(
    shipment_id: str, order_id: str, field: str
) -> None:
    wrong = fulfillment_pb2.GetShipmentRequest(shipment_id=shipment_id, order_id=order_id)
    assert fields(get_shipment_violations(wrong)) == [field]


def test_a_confirmation_names_a_shipment_and_a_tracking_code() -> None:
    wrong = fulfillment_pb2.ConfirmShipmentRequest()
    assert fields(confirm_shipment_violations(wrong)) == ["shipment_id", "tracking_code"]
    right = fulfillment_pb2.ConfirmShipmentRequest(shipment_id=SHIPMENT_ID, tracking_code="T-1")
    assert fields(confirm_shipment_violations(right)) == []
