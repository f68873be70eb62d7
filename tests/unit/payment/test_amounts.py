from __future__ import annotations

import pytest

from mesh.money import InvalidMoney, Money
from payment_svc.amount import to_stripe


@pytest.mark.parametrize(
    ("currency", "minor_units", "sent"),
    [
        ("EUR", 1999, 1999),
        ("JPY", 500, 500),
        ("KWD", 1250, 1250),
        ("ISK", 500, 50_000),
        ("UGX", 500, 50_000),
        ("MGA", 50_000, 500),
    ],
)
def test_an_amount_is_sent_as_stripe_counts_it(currency: str, minor_units: int, sent: int) -> None:
    assert to_stripe(Money(minor_units=minor_units, currency=currency)) == sent


def test_what_stripe_cannot_express_is_refused_and_not_rounded() -> None:
    with pytest.raises(InvalidMoney):
        to_stripe(Money(minor_units=150, currency="MGA"))
