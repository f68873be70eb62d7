from __future__ import annotations

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh.money import (
    MAX_MINOR_UNITS,
    InvalidMoney,
    Money,
    exponent,
    from_proto,
    not_negative,
    positive,
    to_proto,
)

currencies = st.sampled_from(["EUR", "USD", "JPY", "KWD", "CLF", "XXX"])
amounts = st.builds(
    Money,
    minor_units=st.integers(-MAX_MINOR_UNITS, MAX_MINOR_UNITS),
    currency=currencies,
)


@given(amounts)
def test_an_amount_survives_the_wire(amount: Money) -> None:
    on_the_wire = money_pb2.Money.FromString(to_proto(amount).SerializeToString())

    assert from_proto(on_the_wire) == amount


@given(amounts)
def test_units_and_nanos_always_agree_in_sign(amount: Money) -> None:
    proto = to_proto(amount)

    assert proto.units * proto.nanos >= 0
    assert abs(proto.nanos) < 1_000_000_000


@given(
    units=st.integers(-(2**63), 2**63 - 1),
    nanos=st.integers(-(2**31), 2**31 - 1),
    currency=currencies,
)
def test_an_amount_is_read_exactly_or_refused(units: int, nanos: int, currency: str) -> None:
    proto = money_pb2.Money(currency_code=currency, units=units, nanos=nanos)
    try:
        amount = from_proto(proto)
    except InvalidMoney:
        return
    assert amount.minor_units * 10 ** (9 - exponent(currency)) == units * 10**9 + nanos
    assert to_proto(amount) == proto


@pytest.mark.parametrize(
    ("units", "nanos", "currency", "minor_units"),
    [
        (12, 340_000_000, "EUR", 1234),
        (0, 10_000_000, "USD", 1),
        (-1, -500_000_000, "EUR", -150),
        (500, 0, "JPY", 500),
        (1, 234_000_000, "KWD", 1234),
        (1, 234_500_000, "CLF", 12345),
    ],
)
def test_minor_units_follow_the_currency(
    units: int, nanos: int, currency: str, minor_units: int
) -> None:
    proto = money_pb2.Money(currency_code=currency, units=units, nanos=nanos)

    assert from_proto(proto) == Money(minor_units=minor_units, currency=currency)


@pytest.mark.parametrize(
    ("units", "nanos", "currency", "words"),
    [
        (1, 1_000_000, "EUR", "EUR has 2 decimal places"),
        (1, 10_000_000, "JPY", "JPY has 0 decimal places"),
        (1, -10_000_000, "EUR", "same sign"),
        (-1, 10_000_000, "EUR", "same sign"),
        (1, 1_000_000_000, "EUR", "nanos must be between"),
        (2**63 - 1, 0, "EUR", "64 bits"),
        (1, 0, "", "three capital letters"),
        (1, 0, "eur", "three capital letters"),
        (1, 0, "EURO", "three capital letters"),
        (1, 0, "E1R", "three capital letters"),
    ],
)
def test_what_a_currency_cannot_express_is_refused(
    units: int, nanos: int, currency: str, words: str
) -> None:
    with pytest.raises(InvalidMoney, match=words):
        from_proto(money_pb2.Money(currency_code=currency, units=units, nanos=nanos))


def test_an_amount_over_64_bits_does_not_go_on_the_wire() -> None:
    with pytest.raises(InvalidMoney, match="64 bits"):
        to_proto(Money(minor_units=MAX_MINOR_UNITS + 1, currency="JPY"))


@pytest.mark.parametrize("minor_units", [0, -1])
def test_positive_refuses_zero_and_less(minor_units: int) -> None:
    with pytest.raises(InvalidMoney, match="more than zero"):
        positive(Money(minor_units=minor_units, currency="EUR"))


def test_not_negative_accepts_zero_and_refuses_less() -> None:
    nothing = Money(minor_units=0, currency="EUR")

    assert not_negative(nothing) == nothing
    with pytest.raises(InvalidMoney, match="not be negative"):
        not_negative(Money(minor_units=-1, currency="EUR"))
