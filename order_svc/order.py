"""What an order is: the purchase, which never changes, and how far it has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mesh import money
from mesh.money import Money
from protos.order.v1 import order_pb2


class OrderState(StrEnum):
    """Where an order is, by the names of the contract."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    CANCELLED = "CANCELLED"
    ABANDONED = "ABANDONED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of an order."""

    product_id: str
    quantity: int
    unit_price: int
    """In minor units of the order's currency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What a customer buys: everything about an order that never changes."""

    order_id: str
    saga_id: str
    customer_id: str
    currency: str
    items: tuple[Item, ...]

    @property
    def total(self) -> Money:
        """The sum of all lines."""
        return Money(minor_units=total(self.items), currency=self.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order, as it is stored or as its placement promises it."""

    purchase: Purchase
    state: OrderState
    failure_reason: str
    """Why it was cancelled or abandoned; empty otherwise, and until the coordinator has told."""
    unsettled: bool
    """Whether the coordinator may know more of it than is stored here."""
    create_time: datetime
    update_time: datetime


def total(items: Iterable[Item]) -> int:
    """The sum of all lines in minor units."""
    return sum(item.quantity * item.unit_price for item in items)


def read_items(items: Iterable[order_pb2.OrderItem]) -> tuple[Item, ...]:
    """Read items that `validation.item_violations` has nothing against."""
    return tuple(
        Item(
            product_id=item.product_id,
            quantity=item.quantity,
            unit_price=money.from_proto(item.unit_price).minor_units,
        )
        for item in items
    )


def read_purchase(
    wanted: order_pb2.PlaceOrderInput | order_pb2.CreateOrderRequest, saga_id: str
) -> Purchase:
    """Read a request that `validation` has nothing against."""
    return Purchase(
        order_id=wanted.order_id,
        saga_id=saga_id,
        customer_id=wanted.customer_id,
        currency=wanted.items[0].unit_price.currency_code,
        items=read_items(wanted.items),
    )


def to_proto(order: Order) -> order_pb2.Order:
    """The order as the API shows it."""
    purchase = order.purchase
    return order_pb2.Order(
        order_id=purchase.order_id,
        saga_id=purchase.saga_id,
        customer_id=purchase.customer_id,
        items=[_item(item, purchase.currency) for item in purchase.items],
        total=money.to_proto(purchase.total),
        state=f"ORDER_STATE_{order.state}",
        failure_reason=order.failure_reason,
        create_time=order.create_time,
        update_time=order.update_time,
    )


def _item(item: Item, currency: str) -> order_pb2.OrderItem:
    price = Money(minor_units=item.unit_price, currency=currency)
    return order_pb2.OrderItem(
        product_id=item.product_id, quantity=item.quantity, unit_price=money.to_proto(price)
    )
