from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from google.type import money_pb2

from mesh.errors import FieldViolation
from order_svc.validation import (
    MAX_INPUT_BYTES,
    create_order_violations,
    list_orders_violations,
    order_id_violations,
    place_order_violations,
)
from protos.order.v1 import order_pb2
from tests.unit.order.requests import create_order, euros, item, place_order

ORDER_ID = "01a1fe54-1e27-7628-81e2-958cc6843953"

WRONG_ITEMS = {
    "items": [item(f"cup-{n}", 1) for n in range(1_001)],
    "items[0].product_id": [item("")],
    "items[0].quantity": [item(quantity=0)],
    "items[0].unit_price": [item(unit_price=euros(-1))],
    "items[1].product_id": [item("cup"), item("cup")],
    "items[1].unit_price.currency_code": [
        item("cup"),
        item("plate", 1, money_pb2.Money(currency_code="USD", units=1)),
    ],
}


def fields(violations: Iterator[FieldViolation]) -> list[str]:
    return [violation.field for violation in violations]


def test_a_right_request_has_no_violations() -> None:
    assert fields(place_order_violations(place_order())) == []


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = place_order(
        item("", 0, euros(-1)), request_id="-", customer_id="", payment_method="4242"
    )
    assert fields(place_order_violations(wrong)) == [
        "request_id",
        "customer_id",
        "items[0].product_id",
        "items[0].quantity",
        "items[0].unit_price",
        "payment_method",
    ]


@pytest.mark.parametrize("field", WRONG_ITEMS)
def test_wrong_items_are_found_for_placing_and_for_creating(field: str) -> None:
    items = WRONG_ITEMS[field]
    assert fields(place_order_violations(place_order(*items))) == [field]
    assert fields(create_order_violations(create_order(ORDER_ID, *items))) == [field]


def test_an_order_of_nothing_is_refused() -> None:
    empty = create_order(ORDER_ID)
    del empty.items[:]
    assert fields(create_order_violations(empty)) == ["items"]


@pytest.mark.parametrize(
    "price",
    [
        money_pb2.Money(currency_code="euro", units=1),
        money_pb2.Money(units=1),
        money_pb2.Money(currency_code="EUR", units=1, nanos=-10_000_000),
        money_pb2.Money(currency_code="EUR", nanos=1),
        money_pb2.Money(currency_code="JPY", units=1, nanos=500_000_000),
        money_pb2.Money(currency_code="EUR", units=2**63 - 1),
    ],
    ids=["currency", "no currency", "signs", "below a cent", "half a yen", "over 64 bits"],
)
def test_a_price_that_its_currency_cannot_express_is_refused(price: money_pb2.Money) -> None:
    found = fields(place_order_violations(place_order(item(unit_price=price))))
    assert found == ["items[0].unit_price"]


def test_a_free_item_is_no_mistake() -> None:
    gift = item("gift", unit_price=euros(0))
    assert fields(place_order_violations(place_order(item(), gift))) == []


def test_an_order_that_costs_nothing_cannot_be_placed_for_no_card_is_charged_nothing() -> None:
    free = item(unit_price=euros(0))
    assert fields(place_order_violations(place_order(free))) == ["items"]
    assert fields(create_order_violations(create_order(ORDER_ID, free))) == []


def test_a_total_beyond_64_bits_is_refused() -> None:
    dear = item(quantity=1_000_000, unit_price=euros(10**15))
    assert fields(place_order_violations(place_order(dear))) == ["items"]


def test_an_input_larger_than_the_coordinator_takes_is_refused() -> None:
    large = place_order(
        *(item("\N{OGHAM LETTER BEITH}" * 124 + f"{n:04}", 1) for n in range(1_000))
    )
    assert large.ByteSize() > MAX_INPUT_BYTES
    assert fields(place_order_violations(large)) == ["items"]


@pytest.mark.parametrize("text", ["", "x" * 129, "a\x00b", "a\nb"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: place_order_violations(place_order(customer_id=text)),
        lambda text: place_order_violations(place_order(item(text))),
    ],
    ids=["customer_id", "product_id"],
)
def test_names_are_short_and_printable(
    wrong: Callable[[str], Iterator[FieldViolation]], text: str
) -> None:
    assert len(fields(wrong(text))) == 1


def test_a_payment_method_is_a_token_and_never_repeated() -> None:
    card = "4242424242424242"
    wrong = ["", card, f"pm_{card}", "pm_4242_4242_4242_4242", "pm_", "pm_" + "x" * 126, "pm_a-b"]
    violations = [list(place_order_violations(place_order(payment_method=it))) for it in wrong]
    assert violations == [violations[0]] * len(wrong)
    assert [violation.field for violation in violations[0]] == ["payment_method"]


@pytest.mark.parametrize(
    "order_id", ["", "order-1", ORDER_ID.upper(), "6f1c2b9e-50b5-4d3a-9f0e-3c1b6d1f2a10"]
)
def test_an_order_id_is_a_uuid_of_version_7_in_lower_case(order_id: str) -> None:
    assert fields(order_id_violations(order_id)) == ["order_id"]
    assert fields(order_id_violations(ORDER_ID)) == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (order_pb2.ListOrdersRequest(page_size=-1), "page_size"),
        (order_pb2.ListOrdersRequest(page_token="next"), "page_token"),
        (order_pb2.ListOrdersRequest(page_token="\N{SNOWMAN}"), "page_token"),
        (order_pb2.ListOrdersRequest(customer_id="a\x00"), "customer_id"),
    ],
)
def test_a_wrong_page_is_refused(request_: order_pb2.ListOrdersRequest, field: str) -> None:
    assert fields(list_orders_violations(request_)) == [field]
