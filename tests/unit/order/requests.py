"""Requests that are right, to be made wrong in one place."""

from __future__ import annotations

from google.type import money_pb2

from protos.order.v1 import order_pb2


def euros(units: int, cents: int = 0) -> money_pb2.Money:
    return money_pb2.Money(currency_code="EUR", units=units, nanos=cents * 10_000_000)


def item(
    product_id: str = "cup", quantity: int = 2, unit_price: money_pb2.Money | None = None
) -> order_pb2.OrderItem:
    return order_pb2.OrderItem(
        product_id=product_id, quantity=quantity, unit_price=unit_price or euros(4, 50)
    )


def place_order(
    *items: order_pb2.OrderItem,
    request_id: str = "request-1",
    customer_id: str = "ada",
    payment_method: str = "pm_card_visa",
) -> order_pb2.PlaceOrderRequest:
    return order_pb2.PlaceOrderRequest(
        request_id=request_id,
        customer_id=customer_id,
        items=items or (item(), item("plate", 1, euros(12))),
        payment_method=payment_method,
    )


def create_order(order_id: str, *items: order_pb2.OrderItem) -> order_pb2.CreateOrderRequest:
    wanted = items or (item(), item("plate", 1, euros(12)))
    return order_pb2.CreateOrderRequest(order_id=order_id, customer_id="ada", items=wanted)
