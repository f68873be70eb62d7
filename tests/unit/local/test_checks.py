"""The demo's checks can fail: each of them turns to a cross when its promise is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local.books import Books, Stock
from local.checks import all_done, all_undone, ended
from local.sandbox import Charge

CART = {"coffee": 2}
PRICE = 2500
BEFORE = {"coffee": Stock(10, 0), "mug": Stock(5, 1)}
HELD = {"coffee": Stock(8, 2), "mug": Stock(5, 1)}


def charge(captured: int, refunded: int = 0) -> Charge:
    return Charge(saga_id="s-1", captured=captured, refunded=refunded)


DONE = Books(
    order=("CONFIRMED", PRICE), charges=(charge(PRICE),), shipments=("REQUESTED",), stock=HELD
)
UNDONE = Books(
    order=("CANCELLED", PRICE),
    charges=(charge(PRICE, PRICE),),
    shipments=("CANCELLED",),
    stock=BEFORE,
)


def crosses(books: Books, *, done: bool) -> int:
    findings = all_done(CART, BEFORE, books) if done else all_undone(BEFORE, books)
    return sum(not finding.holds for finding in findings)


def test_an_order_that_went_through_keeps_every_promise() -> None:
    assert crosses(DONE, done=True) == 0


def test_an_order_that_was_undone_keeps_every_promise() -> None:
    assert crosses(UNDONE, done=False) == 0


@pytest.mark.parametrize(
    "books",
    [
        replace(DONE, order=("PENDING", PRICE)),
        replace(DONE, order=("CONFIRMED", PRICE + 1)),
        replace(DONE, order=None),
        replace(DONE, charges=(charge(PRICE), charge(PRICE))),
        replace(DONE, charges=(charge(PRICE, PRICE),)),
        replace(DONE, charges=()),
        replace(DONE, shipments=("REQUESTED", "REQUESTED")),
        replace(DONE, shipments=()),
        replace(DONE, stock=BEFORE),
        replace(DONE, stock={**HELD, "mug": Stock(4, 2)}),
    ],
)
def test_one_broken_promise_of_an_order_that_went_through_is_one_cross(books: Books) -> None:
    assert crosses(books, done=True) == 1


@pytest.mark.parametrize(
    "books",
    [
        replace(UNDONE, order=("PENDING", PRICE)),
        replace(UNDONE, order=None),
        replace(UNDONE, charges=(charge(PRICE),)),
        replace(UNDONE, charges=(charge(PRICE, PRICE - 1),)),
        replace(UNDONE, shipments=("REQUESTED",)),
        replace(UNDONE, stock=HELD),
    ],
)
def test_one_broken_promise_of_an_order_that_was_undone_is_one_cross(books: Books) -> None:
    assert crosses(books, done=False) == 1


@pytest.mark.parametrize(
    ("state", "reason", "expected_reason", "holds"),
    [
        ("COMPLETED", "", "", True),
        ("COMPENSATED", "CARD_DECLINED", "CARD_DECLINED", True),
        ("COMPENSATED", "", "CARD_DECLINED", False),
        ("COMPENSATED", "OUT_OF_STOCK", "", False),
        ("STUCK", "", "", False),
    ],
)
def test_a_saga_must_end_as_promised_and_the_customer_be_told_why(
    state: str, reason: str, expected_reason: str, *, holds: bool
) -> None:
    assert ended(state, reason, expected_reason).holds is holds
