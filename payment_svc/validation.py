"""What is wrong with a request, all of it at once. Pure.

Descriptions say what is expected and never repeat what was sent: it might be a card number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mesh import money
from mesh.errors import FieldViolation
from mesh.money import InvalidMoney
from mesh.validation import card_token_violations
from protos.payment.v1 import payment_pb2

_ORDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PAYMENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def charge_violations(request: payment_pb2.ChargePaymentRequest) -> Iterator[FieldViolation]:
    """Everything that keeps a charge from being asked for."""
    yield from _order_id_violations(request.order_id)
    try:
        money.positive(money.from_proto(request.amount))
    except InvalidMoney as error:
        yield FieldViolation("amount", str(error))
    yield from card_token_violations("payment_method", request.payment_method)


def get_payment_violations(request: payment_pb2.GetPaymentRequest) -> Iterator[FieldViolation]:
    """What keeps one payment from being looked up."""
    if bool(request.payment_id) == bool(request.order_id):
        yield FieldViolation("payment_id", "exactly one of payment_id and order_id must be set")
    elif request.order_id:
        yield from _order_id_violations(request.order_id)
    elif not _PAYMENT_ID.fullmatch(request.payment_id):
        yield FieldViolation("payment_id", "must be a UUID in lower case")


def _order_id_violations(order_id: str) -> Iterator[FieldViolation]:
    if not _ORDER_ID.fullmatch(order_id):
        yield FieldViolation("order_id", f"must match {_ORDER_ID.pattern}")
