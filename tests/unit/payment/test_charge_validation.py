from __future__ import annotations

import re

import pytest
from google.type import money_pb2

from payment_svc.validation import charge_violations, get_payment_violations
from protos.payment.v1 import payment_pb2


def request(
    *, token: str = "pm_card_visa", units: int = 19, currency: str = "EUR", order_id: str = "o-1"
) -> payment_pb2.ChargePaymentRequest:
    return payment_pb2.ChargePaymentRequest(
        order_id=order_id,
        amount=money_pb2.Money(currency_code=currency, units=units),
        payment_method=token,
    )


def fields(request: payment_pb2.ChargePaymentRequest) -> list[str]:
    return [violation.field for violation in charge_violations(request)]


@pytest.mark.parametrize(
    "token", ["pm_card_visa", "pm_1MqLiJLkdIwHu7ixUEgbFdYF", f"pm_{'x' * 125}"]
)
def test_a_token_of_the_provider_is_taken(token: str) -> None:
    assert fields(request(token=token)) == []


@pytest.mark.parametrize("token", ["", "pm_", "tok_visa", "pm_card visa", f"pm_{'x' * 126}"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert fields(request(token=token)) == ["payment_method"]


@pytest.mark.parametrize(
    "token",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "pm_4242424242424242",
        "pm_4242_4242_4242_4242",
        "pm_x371449635398431",
    ],
)
def test_a_card_number_is_refused_and_not_repeated(token: str) -> None:
    (violation,) = charge_violations(request(token=token))
    assert violation.field == "payment_method"
    assert not re.search(r"[0-9]{4}", violation.description)


@pytest.mark.parametrize(("units", "currency"), [(0, "EUR"), (-1, "EUR"), (1, "eur"), (1, "")])
def test_an_amount_is_more_than_nothing_of_a_currency(units: int, currency: str) -> None:
    assert fields(request(units=units, currency=currency)) == ["amount"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert fields(request(token="?", units=0, order_id="a b")) == [
        "order_id",
        "amount",
        "payment_method",
    ]


@pytest.mark.parametrize(
    ("payment_id", "order_id"),
    [("", ""), ("0192f0c1-2b3c-7def-8a1b-2c3d4e5f6071", "o-1"), ("no-uuid", ""), ("", "a b")],
)
def test_a_payment_is_asked_for_by_exactly_one_sound_id(payment_id: str, order_id: str) -> None:
    request = payment_pb2.GetPaymentRequest(payment_id=payment_id, order_id=order_id)
    assert len(list(get_payment_violations(request))) == 1
