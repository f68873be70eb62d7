"""What is wrong with a request, all of it at once. Pure.

Violations say what is expected and never repeat what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mesh.errors import FieldViolation
from mesh.validation import text_violations
from protos.fulfillment.v1 import fulfillment_pb2

MAX_ITEMS = 1_000
MAX_QUANTITY = 1_000_000

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def get_shipment_violations(
    request: fulfillment_pb2.GetShipmentRequest,
) -> Iterator[FieldViolation]:
    """What keeps one shipment from being looked up."""
    if bool(request.shipment_id) == bool(request.order_id):
        yield FieldViolation("shipment_id", "exactly one of shipment_id and order_id must be set")
    elif request.order_id:
        yield from text_violations("order_id", request.order_id)
    else:
        yield from shipment_id_violations(request.shipment_id)


def confirm_shipment_violations(
    request: fulfillment_pb2.ConfirmShipmentRequest,
) -> Iterator[FieldViolation]:
    """What keeps the warehouse from being understood."""
    yield from shipment_id_violations(request.shipment_id)
    yield from text_violations("tracking_code", request.tracking_code)


def request_shipment_violations(
    request: fulfillment_pb2.RequestShipmentRequest,
) -> Iterator[FieldViolation]:
    """What keeps a shipment from being requested."""
    yield from text_violations("order_id", request.order_id)
    if not 1 <= len(request.items) <= MAX_ITEMS:
        yield FieldViolation("items", f"must be 1 to {MAX_ITEMS} lines, not {len(request.items)}")
        return
    for index, item in enumerate(request.items):
        yield from text_violations(f"items[{index}].product_id", item.product_id)
        if not 1 <= item.quantity <= MAX_QUANTITY:
            yield FieldViolation(f"items[{index}].quantity", f"must be 1 to {MAX_QUANTITY}")


def shipment_id_violations(shipment_id: str) -> Iterator[FieldViolation]:
    """What is wrong with a shipment id."""
    if not _UUID.fullmatch(shipment_id):
        yield FieldViolation("shipment_id", "must be a UUID in lower case")
