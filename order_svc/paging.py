"""Pages of ListOrders. A token is the id of the last order of the page before, made opaque.

Order ids are UUIDv7, so their order is the order of time, and it does not change between two pages.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from uuid import UUID

from mesh import paging
from protos.order.v1 import order_pb2

_HIGHEST = str(UUID(int=2**128 - 1))


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
    fitting = paging.fitting(orders[:limit])
    more = len(fitting) < len(orders)
    token = make_token(fitting[-1].order_id) if more else ""
    return order_pb2.ListOrdersResponse(orders=fitting, next_page_token=token)
