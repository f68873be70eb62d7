"""What is wrong with a request, all of it at once. Pure.

Descriptions say what is expected and never repeat what was sent: it might be a card number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mesh import money
from mesh.errors import FieldViolation
from mesh.money import InvalidMoney
from protos.payment.v1 import payment_pb2

MAX_TOKEN = 128

_ORDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PAYMENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOKEN = re.compile(r"pm_[A-Za-z0-9_]+")
_CARD_NUMBER = re.compile(r"[0-9](_?[0-9]){11}")
"""Twelve digits in a row, grouped or not: the shortest card number. Tokens are never like this."""


def charge_violations(request: payment_pb2.ChargePaymentRequest) -> Iterator[FieldViolation]:
    """Everything that keeps a charge from being asked for."""
    yield from _order_id_violations(request.order_id)
    try:
        money.positive(money.from_proto(request.amount))
    except InvalidMoney as error:
        yield FieldViolation("amount", str(error))
    token = request.payment_method
    if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token) or _CARD_NUMBER.search(token):
        yield FieldViolation(
            "payment_method",
            f"must match {_TOKEN.pattern} in at most {MAX_TOKEN} characters:"
            " a token, never a card number",
        )


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
