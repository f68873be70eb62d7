from __future__ import annotations

from decimal import Decimal
from random import Random

from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh import money
from order_svc.order import read_purchase
from order_svc.validation import create_order_violations
from protos.order.v1 import order_pb2
from tests.unit.order.requests import create_order

ORDER_ID = "01a1fe54-1e27-7628-81e2-958cc6843953"
DECIMALS = {"EUR": 2, "JPY": 0, "KWD": 3}


@st.composite
def orders(draw: st.DrawFn) -> order_pb2.CreateOrderRequest:
    currency = draw(st.sampled_from(sorted(DECIMALS)))
    lines = draw(
        st.lists(
            st.tuples(st.integers(1, 1_000_000), st.integers(0, 10**9)), min_size=1, max_size=8
        )
    )
    items = [
        order_pb2.OrderItem(
            product_id=f"product-{number}",
            quantity=quantity,
            unit_price=money.to_proto(money.Money(minor_units=price, currency=currency)),
        )
        for number, (quantity, price) in enumerate(lines)
    ]
    return create_order(ORDER_ID, *items)


def decimal(amount: money_pb2.Money) -> Decimal:
    return amount.units + Decimal(amount.nanos) / 10**9


@given(orders())
def test_the_total_is_the_exact_sum_of_all_lines(request: order_pb2.CreateOrderRequest) -> None:
    assert list(create_order_violations(request)) == []
    expected = sum(decimal(item.unit_price) * item.quantity for item in request.items)
    total = money.to_proto(read_purchase(request, "saga-1").total)
    assert decimal(total) == expected
    assert total.currency_code == request.items[0].unit_price.currency_code


@given(orders(), st.randoms())
def test_the_total_does_not_depend_on_the_order_of_the_lines(
    request: order_pb2.CreateOrderRequest, random: Random
) -> None:
    total = read_purchase(request, "saga-1").total
    items = list(request.items)
    random.shuffle(items)
    assert read_purchase(create_order(ORDER_ID, *items), "saga-1").total == total
