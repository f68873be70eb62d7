"""What a shipment is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from protos.fulfillment.v1 import fulfillment_pb2


class ShipmentState(StrEnum):
    """Where a shipment is, by the names of the contract."""

    REQUESTED = "REQUESTED"
    SHIPPED = "SHIPPED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One product and how many of it."""

    product_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What the warehouse was asked to send, and what became of it."""

    shipment_id: str
    order_id: str
    saga_id: str
    items: tuple[Item, ...]
    state: ShipmentState
    tracking_code: str
    """Empty until the goods have left."""
    create_time: datetime
    update_time: datetime


def to_proto(shipment: Shipment) -> fulfillment_pb2.Shipment:
    """The shipment as the API shows it."""
    return fulfillment_pb2.Shipment(
        shipment_id=shipment.shipment_id,
        order_id=shipment.order_id,
        saga_id=shipment.saga_id,
        items=[
            fulfillment_pb2.ShipmentItem(product_id=item.product_id, quantity=item.quantity)
            for item in shipment.items
        ],
        state=f"SHIPMENT_STATE_{shipment.state}",
        tracking_code=shipment.tracking_code,
        create_time=shipment.create_time,
        update_time=shipment.update_time,
    )
