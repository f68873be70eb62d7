"""What is wrong with a request, all of it at once. Pure.

Violations say what is expected and never repeat what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from google.type import money_pb2

from mesh import money
from mesh.errors import FieldViolation
from mesh.money import MAX_MINOR_UNITS, InvalidMoney
from mesh.paging import MAX_SIZE
from mesh.validation import card_token_violations, text_violations
from order_svc import paging
from order_svc.order import read_items, total
from protos.order.v1 import order_pb2

MAX_ITEMS = 1_000
MAX_QUANTITY = 1_000_000
MAX_INPUT_BYTES = 256 * 1024
"""What the coordinator takes as a saga's input."""
_ENVELOPE_BYTES = 128
"""What the order id and the name of the type add to it at most."""
_MAX_DESCRIPTION = 128

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def place_order_violations(request: order_pb2.PlaceOrderRequest) -> Iterator[FieldViolation]:
    """Everything that keeps PlaceOrder from promising an order."""
    if not _REQUEST_ID.fullmatch(request.request_id):
        yield FieldViolation("request_id", f"must match {_REQUEST_ID.pattern}")
    yield from text_violations("customer_id", request.customer_id)
    found = list(item_violations(request.items))
    yield from found or _nothing_to_pay(request.items)
    yield from card_token_violations("payment_method", request.payment_method)
    if request.ByteSize() + _ENVELOPE_BYTES > MAX_INPUT_BYTES:
        yield FieldViolation("items", f"must have at most {MAX_INPUT_BYTES} bytes together")


def create_order_violations(request: order_pb2.CreateOrderRequest) -> Iterator[FieldViolation]:
    """Everything that keeps CreateOrder from writing an order down."""
    yield from order_id_violations(request.order_id)
    yield from text_violations("customer_id", request.customer_id)
    yield from item_violations(request.items)


def list_orders_violations(request: order_pb2.ListOrdersRequest) -> Iterator[FieldViolation]:
    """What keeps a page of orders from being read."""
    if request.page_size < 0:
        yield FieldViolation("page_size", f"must be 0 to {MAX_SIZE}")
    try:
        paging.read_token(request.page_token)
    except ValueError:
        yield FieldViolation("page_token", "must come from the last response")
    if request.customer_id:
        yield from text_violations("customer_id", request.customer_id)


def order_id_violations(order_id: str) -> Iterator[FieldViolation]:
    """What is wrong with an order id; its time is what lists are sorted by."""
    if not _UUID7.fullmatch(order_id):
        yield FieldViolation("order_id", "must be a UUIDv7 in lower case")


def item_violations(items: Sequence[order_pb2.OrderItem]) -> Iterator[FieldViolation]:
    """What is wrong with the items of an order, one by one and taken together."""
    if not 1 <= len(items) <= MAX_ITEMS:
        yield FieldViolation("items", f"must be 1 to {MAX_ITEMS} lines, not {len(items)}")
        return
    found = [*_each(items), *_together(items)]
    yield from found
    if not found and total(read_items(items)) > MAX_MINOR_UNITS:
        yield FieldViolation("items", "must have a total that fits 64 bits of minor units")


def _nothing_to_pay(items: Sequence[order_pb2.OrderItem]) -> Iterator[FieldViolation]:
    if total(read_items(items)) == 0:  # a card cannot be charged nothing
        yield FieldViolation("items", "must have a total of more than zero")


def _each(items: Sequence[order_pb2.OrderItem]) -> Iterator[FieldViolation]:
    for index, item in enumerate(items):
        path = f"items[{index}]"
        yield from text_violations(f"{path}.product_id", item.product_id)
        if not 1 <= item.quantity <= MAX_QUANTITY:
            yield FieldViolation(f"{path}.quantity", f"must be 1 to {MAX_QUANTITY}")
        yield from _price_violations(f"{path}.unit_price", item.unit_price)


def _price_violations(field: str, price: money_pb2.Money) -> Iterator[FieldViolation]:
    try:
        money.not_negative(money.from_proto(price))
    except InvalidMoney as error:
        yield FieldViolation(field, str(error)[:_MAX_DESCRIPTION])


def _together(items: Sequence[order_pb2.OrderItem]) -> Iterator[FieldViolation]:
    first_lines: dict[str, int] = {}
    currency = items[0].unit_price.currency_code
    for index, item in enumerate(items):
        first = first_lines.setdefault(item.product_id, index)
        if first != index:
            yield FieldViolation(
                f"items[{index}].product_id", f"must differ from the one of items[{first}]"
            )
        if item.unit_price.currency_code != currency:
            yield FieldViolation(
                f"items[{index}].unit_price.currency_code", "must be the one of items[0]"
            )
