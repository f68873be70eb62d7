"""What is wrong with a request, all of it at once. Pure.

Violations say what is expected and never repeat what was sent.
"""

from __future__ import annotations

from collections.abc import Iterator

from inventory_svc import paging
from mesh.errors import FieldViolation
from mesh.paging import MAX_SIZE
from mesh.validation import text_violations
from protos.inventory.v1 import inventory_pb2

MAX_ITEMS = 1_000
MAX_QUANTITY = 1_000_000
MAX_AVAILABLE = 1_000_000_000


def set_stock_violations(request: inventory_pb2.SetStockRequest) -> Iterator[FieldViolation]:
    """Everything that keeps stock from being set."""
    yield from text_violations("product_id", request.product_id)
    if not 0 <= request.available <= MAX_AVAILABLE:
        yield FieldViolation("available", f"must be 0 to {MAX_AVAILABLE}")


def list_stock_violations(request: inventory_pb2.ListStockRequest) -> Iterator[FieldViolation]:
    """What keeps a page of stock from being read."""
    if request.page_size < 0:
        yield FieldViolation("page_size", f"must be 0 to {MAX_SIZE}")
    try:
        paging.read_token(request.page_token)
    except ValueError:
        yield FieldViolation("page_token", "must come from the last response")


def reserve_stock_violations(
    request: inventory_pb2.ReserveStockRequest,
) -> Iterator[FieldViolation]:
    """Everything that makes no sense in a reservation."""
    yield from text_violations("order_id", request.order_id)
    if not 1 <= len(request.items) <= MAX_ITEMS:
        yield FieldViolation("items", f"must be 1 to {MAX_ITEMS} lines, not {len(request.items)}")
        return
    for index, item in enumerate(request.items):
        yield from text_violations(f"items[{index}].product_id", item.product_id)
        if not 1 <= item.quantity <= MAX_QUANTITY:
            yield FieldViolation(f"items[{index}].quantity", f"must be 1 to {MAX_QUANTITY}")
