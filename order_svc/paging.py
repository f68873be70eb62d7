"""Pages of ListOrders. A token is the id of the last order of the page before, made opaque.

Order ids are UUIDv7, so their order is the order of time, and it does not change between two pages.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from uuid import UUID

from protos.order.v1 import order_pb2

DEFAULT_SIZE = 50
MAX_SIZE = 500
MAX_BYTES = 2 << 20
"""A page ends early once it is this large: gRPC clients take 4 MiB."""
_HIGHEST = str(UUID(int=2**128 - 1))


def size(request: order_pb2.ListOrdersRequest) -> int:
    """How many orders the page holds at most."""
    return min(request.page_size or DEFAULT_SIZE, MAX_SIZE)


def read_token(token: str) -> str:
    """Id that all orders of the page are below.

    Raises:
        ValueError: no token of ours.
    """
    if not token:
        return _HIGHEST
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    return str(UUID(bytes=raw))


def make_token(order_id: str) -> str:
    """The token of the page that begins after this order."""
    return base64.urlsafe_b64encode(UUID(order_id).bytes).decode()


def response(orders: Sequence[order_pb2.Order], limit: int) -> order_pb2.ListOrdersResponse:
    """One page; `orders` holds one more than `limit` when there is a next one."""
    fitting = _fitting(orders[:limit])
    more = len(fitting) < len(orders)
    token = make_token(fitting[-1].order_id) if more else ""
    return order_pb2.ListOrdersResponse(orders=fitting, next_page_token=token)


def _fitting(orders: Sequence[order_pb2.Order]) -> Sequence[order_pb2.Order]:
    room = MAX_BYTES
    for count, order in enumerate(orders):
        room -= order.ByteSize()
        if room < 0 and count > 0:
            return orders[:count]
    return orders
